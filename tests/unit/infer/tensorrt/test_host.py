import json

import numpy as np
import onnx
import pytest
import yaml
from support import engines, onnx_models
from support.fake_cuda import FakeCuda
from support.onnx_models import Box

from edgecount.config import ModelSettings, Settings
from edgecount.errors import ModelError
from edgecount.infer import detector as detectors
from edgecount.infer.cuda.driver import Device
from edgecount.infer.onnxruntime import open_network as open_onnx
from edgecount.infer.tensorrt import host
from edgecount.runtime.plan import prepare

SIDE = 64


def opener(flavour, **options):
    calls = FakeCuda()
    device = Device.open(0, calls)
    trt = engines.tensorrt(flavour, calls)
    given = {"device": device, "trt": trt, **options}
    return lambda path, **more: host.open_network(path, **given, **more)


def with_header(path, values):
    text = json.dumps(values).encode()
    path.write_bytes(len(text).to_bytes(4, "little") + text + path.read_bytes())
    return path


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
@pytest.mark.parametrize("layout", ["yolox", "yolov8"])
def test_a_detector_on_an_engine_finds_what_it_finds_on_the_onnx_file(tmp_path, flavour, layout):
    model = onnx_models.spot_model(tmp_path / "a.onnx", layout, width=SIDE, height=SIDE)
    onnx_models.write_recipe(model, layout, width=SIDE, height=SIDE)
    engine = engines.write(tmp_path / "a.engine", onnx.load(str(model)), flavour)
    picture = onnx_models.picture_with_spots([(20, 36)], SIDE, SIDE)
    found = []
    for path, open_network in ((model, open_onnx), (engine, opener(flavour))):
        detector, _ = detectors.create(ModelSettings(path=path), open_network)
        found += [detector.detect([picture])[0] for _ in range(3)]
    assert len(found[0]) == 1
    for other in found[1:]:
        np.testing.assert_array_equal(other.boxes, found[0].boxes)
        np.testing.assert_array_equal(other.scores, found[0].scores)


def test_an_engine_of_ultralytics_needs_no_recipe(tmp_path):
    model = onnx_models.constant_model(
        tmp_path / "a.onnx", "yolov8", [Box(8, 8, 40, 48, 0.9, 1)], classes=2
    )
    engine = engines.write(tmp_path / "best.engine", onnx.load(str(model)), "10.3")
    names = {"0": "dog", "1": "person"}
    with_header(engine, {"task": "detect", "stride": 32, "imgsz": [64, 64], "names": names})
    detector, recipe = detectors.create(ModelSettings(path=engine), opener("10.3"))
    assert recipe.classes == ["dog", "person"]
    found = detector.detect([np.zeros((64, 64, 3), np.uint8)])[0]
    np.testing.assert_allclose(found.boxes, [[8, 8, 40, 48]], atol=1e-3)


def test_an_engine_with_efficient_nms_runs_with_a_recipe_for_end_to_end_detectors(tmp_path):
    rows = np.array([[1, 2, 11, 12, 0.9, 0], [3, 4, 9, 14, 0.5, 1]], np.float32)
    engine = engines.write(tmp_path / "nms.engine", engines.efficient_nms(rows, 2), "8.6")
    side = engines.SIDE
    recipe = {
        "name": "nms",
        "file": engine.name,
        "head": "end2end",
        "classes": ["person", "dog"],
        "input": {"width": side, "height": side},
    }
    engine.with_suffix(".recipe.yaml").write_text(yaml.safe_dump(recipe))
    opened = opener("8.6", convert=engines.RowsOnHost)
    detector, _ = detectors.create(ModelSettings(path=engine), opened)
    found = detector.detect([np.zeros((side, side, 3), np.uint8)])[0]
    np.testing.assert_allclose(found.boxes, rows[:1, :4])  # a dog is not counted


@pytest.mark.parametrize(("asked", "size"), [(None, (48, 32)), ((64, 64), (64, 64))])
def test_an_open_engine_runs_at_the_size_asked_for_or_that_it_was_tuned_for(tmp_path, asked, size):
    model = engines.network(dynamic=True)
    shapes = ((1, 3, 32, 32), (1, 3, 32, 48), (1, 3, 64, 64))
    engine = engines.write(tmp_path / "a.engine", model, "10.3", profiles=[shapes])
    network, _ = opener("10.3", asked=asked)(engine)
    assert network.input_shape == (None, 3, None, None)
    picture = np.random.default_rng(1).random((2, 3, *size[::-1]), np.float32)
    np.testing.assert_array_equal(network.run(picture), engines.answer(model, picture))
    network.close()
    network.close()


def test_an_engine_that_does_not_fit_its_recipe_is_refused(tmp_path):
    engine = engines.write(tmp_path / "a.engine", engines.network(), "10.3")
    onnx_models.write_recipe(engine, "yolov8", width=engines.SIDE, height=engines.SIDE)
    with pytest.raises(ModelError, match="recipe's head expects"):
        opener("10.3")(engine)


def test_the_detector_of_an_engine_comes_with_its_recipe_and_precision(tmp_path):
    model = engines.network(half=True, dynamic=True)
    shapes = ((1, 3, 32, 32), (1, 3, 32, 48), (1, 3, 64, 64))
    engine = engines.write(tmp_path / "a.engine", model, "10.3", profiles=[shapes])
    recipe = {
        "name": "eights",
        "file": engine.name,
        "head": "yolox",
        "classes": ["head"],
        "strides": [8],
        "input": {"width": 32, "height": 32},
    }
    engine.with_suffix(".recipe.yaml").write_text(yaml.safe_dump(recipe))
    settings = ModelSettings(path=engine, input_size=(64, 64))
    detector, found, precision = host.create_detector(settings, None, opener("10.3"))
    assert detector.size == (64, 64)
    assert (found.name, precision) == ("eights", "fp16")


def test_an_engine_that_was_looked_at_holds_no_memory_until_the_cpu_has_to_count(tmp_path):
    model = onnx_models.spot_model(tmp_path / "a.onnx", "yolox", width=SIDE, height=SIDE)
    onnx_models.write_recipe(model, "yolox", width=SIDE, height=SIDE)
    engine = engines.write(tmp_path / "a.engine", onnx.load(str(model)), "10.3")
    calls = FakeCuda()
    device, trt = Device.open(0, calls), engines.tensorrt("10.3", calls)
    opened = []

    def open_engine(path, **more):
        opened.append(path)
        return host.open_network(path, device=device, trt=trt, **more)

    detector, _, _ = host.create_detector(ModelSettings(path=engine), None, open_engine)
    assert calls.memory == {}
    assert opened == [engine]
    picture = onnx_models.picture_with_spots([(20, 36)], SIDE, SIDE)
    for _ in range(2):
        assert len(detector.detect([picture])[0]) == 1
    assert calls.memory
    assert opened == [engine, engine]


def test_a_configuration_may_name_an_engine(tmp_path, monkeypatch):
    model = onnx_models.spot_model(tmp_path / "a.onnx", "yolox", width=SIDE, height=SIDE)
    onnx_models.write_recipe(model, "yolox", width=SIDE, height=SIDE)
    engine = engines.write(tmp_path / "a.engine", onnx.load(str(model)), "10.3")
    opened = opener("10.3")
    create = host.create_detector
    monkeypatch.setattr(host, "create_detector", lambda s, timer: create(s, timer, opened))
    settings = {"model": {"path": str(engine)}, "cameras": [{"name": "door", "source": "a.avi"}]}
    plan = prepare(Settings.model_validate(settings), lambda *_: None)
    assert plan.model.path == engine
    assert plan.model.recipe.head == "yolox"
    picture = onnx_models.picture_with_spots([(20, 36)], SIDE, SIDE)
    assert len(plan.model.detector.detect([picture])[0]) == 1
