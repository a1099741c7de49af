"""Quantisation-aware training of a tiny network on drawn pictures, on a CPU."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("pycocotools")

from edgecount.errors import DatasetError, ModelError  # noqa: E402
from edgecount.infer import recipe as recipes  # noqa: E402
from edgecount.toolchain.quantize.precision import PrecisionRules  # noqa: E402
from edgecount.toolchain.quantize.qdq import write_qdq  # noqa: E402
from edgecount.toolchain.quantize.table import CalibrationTable  # noqa: E402
from edgecount.toolchain.train.export import export_onnx  # noqa: E402
from edgecount.toolchain.train.model import Detector  # noqa: E402
from edgecount.toolchain.train.onnx_network import OnnxNetwork  # noqa: E402
from edgecount.toolchain.train.qat import (  # noqa: E402
    QatJob,
    export_quantised,
    prepare_from_images,
    steps_apart,
    train_quantised,
)
from edgecount.toolchain.train.recipe import TrainRecipe  # noqa: E402
from edgecount.toolchain.train.session import Job  # noqa: E402

PICTURES = Path(__file__).parent.parent / "evaluate" / "pictures"
RECIPE = TrainRecipe.model_validate(
    {
        "name": "tiny",
        "cache": 128,
        "size": 128,
        "model": {
            "backbone": "csp",
            "backbone_options": {"channels": [8, 8, 16, 16, 24], "depth": [1, 1, 1, 1]},
            "neck_width": [16, 16, 24],
            "head_width": 16,
        },
        "augment": {
            "layout": [1, 0, 0],
            "scale_1": [0.9, 1.1],
            "tilt": 0,
            "paste": 0,
            "colour": 0,
            "degrade": 0,
        },
        "schedule": {"batch": 8, "sizes": [128]},
        "qat": {"epochs": 6, "batch": 8, "lr": 0.001, "ema": 0.5},
    }
)


def _peaks(model):
    """Greatest magnitude of every activation on one random picture."""
    import onnxruntime

    watched = onnx.ModelProto.FromString(model.SerializeToString())
    names = [name for node in model.graph.node for name in node.output]
    known = {output.name for output in model.graph.output}
    for name in names:
        if name not in known:
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            watched.graph.output.append(info)
    session = onnxruntime.InferenceSession(watched.SerializeToString())
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, 128, 128)).astype(np.float32)
    found = zip(names, session.run(names, {"images": images}))
    return {"images": 255.0, **{n: float(np.abs(a).max()) or 1.0 for n, a in found}}


def _table(path):
    """A table of an ONNX file's peaks."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return CalibrationTable(digest, "minmax", 1, "", {}, _peaks(onnx.load(str(path))))


@pytest.fixture
def what(tmp_path):
    """A tiny detector with random weights, exported and calibrated."""
    torch.manual_seed(0)
    model = Detector(RECIPE.model, 1).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training: no two channels alike
            module.running_mean.normal_(0, 0.1)
            module.weight.data.uniform_(0.5, 1.5)
    path = tmp_path / "tiny.onnx"
    export_onnx(model, path, RECIPE)
    return QatJob(path, _table(path), PrecisionRules())


def _job(folder, out, resume=False):
    return Job(folder, [], [], out, "cpu", resume)


def test_the_torch_network_rounds_where_the_file_does(what):
    plain = onnx.load(str(what.model))
    quantised = write_qdq(plain, what.table, what.rules)
    network = OnnxNetwork(quantised, plain)
    assert len(network.quantised) > 20
    assert steps_apart(network, quantised) <= 1.01


def test_a_scale_that_is_off_is_noticed(what):
    plain = onnx.load(str(what.model))
    quantised = write_qdq(plain, what.table, what.rules)
    network = OnnxNetwork(quantised, plain)
    with torch.no_grad():
        next(iter(network.octaves.values())).sub_(0.3)
    assert steps_apart(network, quantised) > 1.01


def test_training_repairs_what_calibration_by_the_peaks_breaks(tmp_path):
    model, running = recipes.find("head-n", None)
    what = QatJob(model, _table(model), PrecisionRules(), running)
    schedule = RECIPE.schedule.model_copy(update={"sizes": [192]})
    qat = RECIPE.qat.model_copy(update={"batch": 6, "labels": 0.0, "lr": 1e-4, "epochs": 10})
    changes = {"cache": 256, "size": 192, "schedule": schedule, "qat": qat}
    recipe = RECIPE.model_copy(update=changes)
    epochs = []
    job = Job(PICTURES, [], ["."], tmp_path / "out", "cpu", False)
    result = train_quantised(recipe, what, job, lambda _: None, epochs.append)
    assert result.before["ap50"] < result.after["ap50"] <= result.fp32["ap50"] + 0.05
    losses = [p.losses["master"] for p in epochs]
    assert np.mean(losses[-3:]) < np.mean(losses[:2])
    assert result.steps_apart <= 1.01
    assert (tmp_path / "out" / "curves.png").is_file()
    # The file is complete: float weights learnt, scales learnt, same places.
    again = onnx.load(str(result.path))
    onnx.checker.check_model(again)
    metadata = {entry.key: entry.value for entry in again.metadata_props}
    carried = recipes.embedded(result.path, metadata)
    assert carried == running.model_copy(update={"file": "head-n.qat.onnx"})
    table = CalibrationTable.load(result.table)
    assert table.method == "minmax+qat"
    assert table.amax != what.table.amax
    before = write_qdq(onnx.load(str(model)), what.table, what.rules)
    assert [n.name for n in again.graph.node] == [n.name for n in before.graph.node]


def test_a_run_in_two_pieces_ends_like_one(what, drawn, tmp_path):
    folder, silent = drawn(8), lambda _: None
    whole = train_quantised(RECIPE, what, _job(folder, tmp_path / "whole"), silent, silent)

    def interrupt(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    job = _job(folder, tmp_path / "pieces")
    assert train_quantised(RECIPE, what, job, silent, interrupt) is None
    job = _job(folder, tmp_path / "pieces", resume=True)
    pieces = train_quantised(RECIPE, what, job, silent, silent)
    a, b = (CalibrationTable.load(r.table).amax for r in (whole, pieces))
    assert a == pytest.approx(b, rel=1e-3)


def test_scales_behind_layers_in_fp16_are_exported_too(what, tmp_path):
    plain = onnx.load(str(what.model))
    rules = PrecisionRules(fp16=("backbone.stem.*",))
    mixed = QatJob(what.model, what.table, rules)
    network = OnnxNetwork(write_qdq(plain, what.table, rules), plain)
    with torch.no_grad():
        for octave in network.octaves.values():
            octave.sub_(0.4)
    assert set(network.learnt_amax()) <= set(what.table.amax)
    assert export_quantised(network, plain, mixed, tmp_path / "a.onnx") <= 1.01


def test_frozen_scales_stay(what, tmp_path):
    plain = onnx.load(str(what.model))
    network = OnnxNetwork(write_qdq(plain, what.table, what.rules), plain, learn_scales=False)
    export_quantised(network, plain, what, tmp_path / "a.onnx")
    table = CalibrationTable.load(tmp_path / "a.table.json")
    for tensor, amax in network.learnt_amax().items():
        assert table.amax[tensor] == pytest.approx(amax)


def test_a_file_that_computes_something_else_is_not_written(what, tmp_path):
    plain = onnx.load(str(what.model))
    network = OnnxNetwork(write_qdq(plain, what.table, what.rules), plain)
    with torch.no_grad():
        for weight in network.weights.values():
            weight.mul_(1.7)
    network.learnt_weights = dict
    with pytest.raises(ModelError, match="differs from PyTorch"):
        export_quantised(network, plain, what, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_a_table_of_another_model_is_refused(what, drawn, tmp_path):
    other = CalibrationTable("0" * 64, "minmax", 1, "", {}, what.table.amax)
    wrong = QatJob(what.model, other, what.rules)
    with pytest.raises(DatasetError, match="another file"):
        train_quantised(RECIPE, wrong, _job(drawn(2), tmp_path), lambda _: None, lambda _: None)


def test_a_start_from_images_is_evened_out_and_calibrated(tmp_path):
    what = prepare_from_images("head-n", PICTURES, PrecisionRules(), tmp_path)
    assert what.table.model_sha256 == hashlib.sha256(what.model.read_bytes()).hexdigest()
    assert (what.model.name, what.table.images) == ("head-n.onnx", 6)
    plain = onnx.load(str(recipes.find("head-n", None)[0]))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    evened = onnx.load(str(what.model))
    with torch.no_grad():
        wanted = OnnxNetwork(plain, plain)(images)
        np.testing.assert_allclose(OnnxNetwork(evened, evened)(images), wanted, atol=2e-3)
    again = prepare_from_images("head-n", PICTURES, PrecisionRules(), tmp_path / "again")
    assert again.table.amax == what.table.amax
