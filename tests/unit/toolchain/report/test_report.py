"""A whole report on the committed pictures; its parts on hand-worked cases."""

import json
import re
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycocotools")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
onnx = pytest.importorskip("onnx")

from support import engines  # noqa: E402
from support.cuda_emulator.emulator import needs_compiler  # noqa: E402
from support.emulated_cuda import EmulatedCuda, HostNetwork  # noqa: E402
from support.onnx_models import picture_with_spots, spot_model, write_recipe  # noqa: E402

from edgecount.errors import ConfigError, DatasetError, EngineError  # noqa: E402
from edgecount.infer import recipe as recipes  # noqa: E402
from edgecount.infer.cuda import backend as cuda_backend  # noqa: E402
from edgecount.infer.onnxruntime import OrtNetwork  # noqa: E402
from edgecount.infer.tensorrt.device import DeviceFacts  # noqa: E402
from edgecount.records import Detections, Tracked, Tracks  # noqa: E402
from edgecount.toolchain.evaluate.average_precision import Found, Truth  # noqa: E402
from edgecount.toolchain.evaluate.detect import Observed  # noqa: E402
from edgecount.toolchain.report import detectors, measure  # noqa: E402
from edgecount.toolchain.report import report as reports  # noqa: E402
from edgecount.toolchain.report.detectors import (  # noqa: E402
    BackendDetector,
    Opened,
    Place,
    open_detector,
)
from edgecount.toolchain.report.disagreement import unmatched  # noqa: E402
from edgecount.toolchain.report.measure import Task, precision_recall  # noqa: E402
from edgecount.toolchain.report.plots import Damage, sensitivity  # noqa: E402
from edgecount.toolchain.report.sensitivity import signal_to_noise  # noqa: E402
from edgecount.toolchain.report.variants import FP16, FP32, TUNED, Variant  # noqa: E402
from edgecount.toolchain.yolo_files import find_pairs  # noqa: E402

PICTURES = Path(__file__).parent.parent / "evaluate" / "pictures"
ORDER = ["fp32", "fp16", "int8-basic", "int8-tuned"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report on the default model, without the slow measurement of single layers."""
    folder = tmp_path_factory.mktemp("report")
    patch = pytest.MonkeyPatch()
    patch.setattr(reports, "damages", lambda *_: [Damage("neck.a", 20.0), Damage("head.b", 9.0)])
    request = reports.Request(
        model="head-n", data=PICTURES, out=folder, turns=1, place=Place(size=(320, 320))
    )
    said = []
    report = reports.build(request, said.append)
    patch.undo()
    return report, said


def test_rows_come_in_the_order_of_the_reference_table(made):
    report, _ = made
    assert [row["key"] for row in report.rows][: len(ORDER)] == ORDER
    plain = report.rows[0]
    assert plain["file"] == "head-n.onnx"
    assert plain["ap50"] > 0.7
    assert abs(report.rows[1]["ap50"] - plain["ap50"]) < 0.02
    assert all(r["p50_ms"] > 0 and r["p99_ms"] >= r["p50_ms"] for r in report.rows)
    assert all(r["memory_mb"] > 0 and r["count"] is None for r in report.rows)


def test_the_json_says_the_same_and_how_it_was_made(made):
    report, _ = made
    data = json.loads(report.json.read_text())
    assert data["format"] == 1
    assert data["variants"] == report.rows
    assert data["size"] == "320×320"
    _, recipe = recipes.find("head-n", None)
    assert data["budget"] == recipe.budget.model_dump()
    assert [d["layer"] for d in data["sensitivity"]] == ["neck.a", "head.b"]


def test_the_page_needs_nothing_from_outside(made):
    report, _ = made
    page = report.page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(http" not in page
    assert page.count("<svg") == 4  # Pareto, precision and recall, layers, histograms
    assert "#010203" not in page  # ink is the page's own
    assert page.count("data:image/jpeg;base64,") % len(report.rows) == 0


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "none").mkdir()
    request = reports.Request("head-n", PICTURES, tmp_path, calibration=tmp_path / "none")
    with pytest.raises(DatasetError, match="no pictures"):
        reports.build(request, lambda _: None)


def test_an_unknown_backend_is_named():
    path, recipe = recipes.find("head-n", None)
    with pytest.raises(ConfigError, match="cpu, cuda, tensorrt"):
        open_detector(Place("tpu"), path, recipe, 0.1)


class _Blind:
    """Finds nothing, or something where nobody is."""

    def __init__(self, found):
        self._found = found

    def detect(self, images):
        return [self._found for _ in images]


NOWHERE = Detections(
    np.array([[0, 0, 1, 1]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32)
)


@pytest.mark.parametrize(
    ("backend", "found"), [("cuda", Detections.empty()), ("cuda", NOWHERE), ("cpu", NOWHERE)]
)
def test_a_plain_model_that_finds_nothing_ends_the_report(monkeypatch, backend, found):
    path, recipe = recipes.find("head-n", None)
    opened = Opened(_Blind(found), lambda: None)
    monkeypatch.setattr(measure, "open_detector", lambda *_: opened)
    task = Task(recipe, Place(backend), find_pairs(PICTURES, None), turns=1)
    plain = Variant(FP32, "FP32", path, "as trained")
    said = []
    with pytest.raises(EngineError) as caught:
        measure.measure([plain], task, np.zeros((4, 6, 3), np.uint8), said.append)
    text = str(caught.value)
    assert text.startswith(f"head-n.onnx (FP32) on {backend} finds none of ")
    assert re.search(r"none of [1-9]\d* labelled boxes in [1-9]\d* pictures", text)
    assert ("--backend cpu" in text) == (backend == "cuda")
    assert "--data" in text
    assert said[-1] == "accuracy of FP32"


def test_pictures_without_labelled_boxes_end_nothing(monkeypatch, tmp_path):
    path, recipe = recipes.find("head-n", None)
    opened = Opened(_Blind(Detections.empty()), lambda: None)
    monkeypatch.setattr(measure, "open_detector", lambda *_: opened)
    monkeypatch.setattr(measure, "_memory", lambda *_: 0.0)
    pairs = [(picture, tmp_path / "none.txt") for picture, _ in find_pairs(PICTURES, None)]
    pairs[0][1].touch()
    task = Task(recipe, Place(), pairs, turns=1)
    plain = Variant(FP32, "FP32", path, "as trained")
    (row,) = measure.measure([plain], task, np.zeros((4, 6, 3), np.uint8), lambda _: None)
    assert row.accuracy.ap50 == 0.0


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("cuda", r"ONNX Runtime \d+\.\d+\.\d+\S*, CUDA on H100, driver 580\.1"),
        ("tensorrt", r"TensorRT 10\.3\S* on H100, driver 580\.1"),
    ],
)
def test_a_gpu_is_named(monkeypatch, backend, expected):
    facts = DeviceFacts("H100", (9, 0), "580.1", "13.0", False)
    monkeypatch.setattr(detectors.devices, "look", lambda: facts)
    monkeypatch.setattr(detectors.versions, "find", lambda: engines.tensorrt("10.3"))
    assert re.fullmatch(expected, Place(backend).describe())


@pytest.mark.parametrize(
    ("key", "backend", "precision"),
    [
        (FP32, "tensorrt", "fp32"),
        (FP16, "tensorrt", "fp16"),
        (TUNED, "tensorrt", "int8"),
        (TUNED, "cuda", "auto"),  # runs the file as it is
    ],
)
def test_each_variant_asks_for_its_own_engine(monkeypatch, key, backend, precision):
    path, recipe = recipes.find("head-n", None)
    asked = []

    def create(spec):
        asked.append(spec.settings.precision)
        return types.SimpleNamespace(interim=None, close=lambda: None)

    module = types.SimpleNamespace(create=create)
    monkeypatch.setattr(detectors.importlib, "import_module", lambda _: module)
    variant = Variant(key, "any", path, "")
    open_detector(Place(backend), path, recipe, 0.1, variant.precision).close()
    assert asked == [precision]


def test_a_stand_by_is_not_measured_for_the_engine_that_is_missing(monkeypatch):
    path, recipe = recipes.find("head-n", None)
    closed = []
    stand_by = types.SimpleNamespace(interim="no engine yet", close=lambda: closed.append(1))
    module = types.SimpleNamespace(create=lambda _: stand_by)
    monkeypatch.setattr(detectors.importlib, "import_module", lambda _: module)
    with pytest.raises(EngineError, match=r"edgecount build .*head-n\.onnx --precision fp16"):
        open_detector(Place("tensorrt"), path, recipe, 0.1, "fp16")
    assert closed


def _boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def _found(boxes, scores):
    return Found(boxes, np.array(scores, np.float32), np.zeros(len(boxes), np.int64))


def test_precision_and_recall_of_a_hand_worked_case():
    truth = Truth(_boxes((0, 0, 9, 9), (20, 0, 29, 9)), np.zeros(2, np.int64), np.zeros(2, bool))
    # By score: true, false, true.
    found = _found(_boxes((0, 0, 9, 9), (50, 0, 59, 9), (20, 0, 29, 9)), [0.9, 0.8, 0.7])
    recipe = recipes.find("head-n", None)[1]
    seen = Observed(recipe, 64, 64, [Path("a")], [truth], [found], [1.0], 0.0)
    recall, precision = precision_recall(seen)
    assert recall.tolist() == [0.5, 0.5, 1.0]
    assert precision.tolist() == pytest.approx([1.0, 0.5, 2 / 3])


def test_only_sure_detections_without_partner_are_apart():
    a = _found(_boxes((0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9)), [0.9, 0.8, 0.2])
    b = _found(_boxes((1, 0, 10, 9)), [0.6])
    assert unmatched(a, b, 0.4).tolist() == [False, True]
    assert unmatched(b, a, 0.4).tolist() == [False]
    assert unmatched(a, _found(_boxes(), []), 0.4).tolist() == [True, True]


def test_signal_to_noise_in_decibels():
    wanted = [np.full((2, 5), 10.0, np.float32)]
    assert signal_to_noise(wanted, [np.full((2, 5), 11.0, np.float32)]) == pytest.approx(20.0)
    assert signal_to_noise(wanted, wanted) == 120.0


def test_the_worst_layers_are_drawn():
    drawn = sensitivity([Damage(f"neck.layer{i}.Conv", 30.0 - i) for i in range(30)], count=5)
    assert "neck.layer29" in drawn
    assert "neck.layer10" not in drawn


class _Backend:
    """Gives back a detection as wide as the frame, once it is asked."""

    def __init__(self, silent=False):
        self.batches, self.silent = [], silent

    def submit(self, batch):
        self.batches.append(batch)

    def collect(self, timeout):
        if self.silent:
            return None
        (frame,) = self.batches.pop()
        box = _boxes((0, 0, frame.info.width, frame.info.height))
        found = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32))
        return [Tracked(frame.info, Tracks.empty(), found)]


def test_a_whole_backend_serves_as_a_detector():
    images = [np.zeros((4, w, 3), np.uint8) for w in (6, 8)]
    found = BackendDetector(_Backend()).detect(images)
    assert [f.boxes[0].tolist() for f in found] == [[0, 0, 6, 4], [0, 0, 8, 4]]
    with pytest.raises(EngineError, match="nothing back"):
        BackendDetector(_Backend(silent=True)).detect(images)


def test_the_cuda_backend_finds_what_the_cpu_finds(monkeypatch, tmp_path):
    needs_compiler()
    path = spot_model(tmp_path / "spots.onnx", "ltrb", width=128, height=128)
    write_recipe(path, "ltrb", width=128, height=128)
    _, recipe = recipes.find(None, path)
    cuda = EmulatedCuda(monkeypatch)
    emulated = partial(cuda_backend.CudaBackend, open_device=cuda.open, load=cuda.load)
    monkeypatch.setattr(cuda_backend, "CudaBackend", emulated)
    monkeypatch.setattr(
        cuda_backend,
        "OrtCudaNetwork",
        lambda path, *, size, **_: HostNetwork(cuda.calls, OrtNetwork(path, 1), size),
    )
    images = [
        picture_with_spots([(50.0, 40.0), (140.0, 120.0)], 192, 160, spot=36),
        picture_with_spots([(60.0, 50.0)], 128, 96, spot=24),
        picture_with_spots([], 128, 96, spot=24),
    ]
    found = []
    for backend in ("cpu", "cuda"):
        opened = open_detector(Place(backend), path, recipe, recipe.low_threshold)
        found.append(opened.detector.detect(images))
        opened.close()
    assert [len(d) for d in found[0]] == [2, 1, 0]
    assert [len(d) for d in found[1]] == [2, 1, 0]
    for one, other in zip(*found):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
        assert one.classes.tolist() == other.classes.tolist()
