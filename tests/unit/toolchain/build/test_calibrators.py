"""TensorRT's own calibrators, fed with our scales or our pictures."""

import ctypes
import json

import cv2
import numpy as np
import pytest
from support import conv_models, fake_cuda, fake_tensorrt_builder

from edgecount.errors import DatasetError
from edgecount.infer.cuda.driver import Device
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.infer.tensorrt.profile import Profile
from edgecount.infer.tensorrt.versions import TensorRt, Version, features_of
from edgecount.toolchain.build import calibrators, engine
from edgecount.toolchain.build.calibrators import DeviceUpload, TableFeed, batches_of, feed_for
from edgecount.toolchain.build.job import Calibration, Job, Pictures

SHAPE = (2, 3, 64, 96)
RECIPE = Recipe(
    name="m",
    file="m.onnx",
    head="yolov8",
    classes=["head", "hat"],
    input=InputRecipe(width=96, height=64, color="rgb", scale=1 / 255),
)


class Uploaded:
    """Stands in for the device: remembers what was copied."""

    def __init__(self) -> None:
        self.batches = []

    def __call__(self, batch) -> int:
        self.batches.append(batch.copy())
        return 4096 * len(self.batches)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        cv2.imwrite(str(folder / f"{i}.png"), random.integers(0, 256, (48, 80, 3), np.uint8))
    return folder


def test_pictures_are_prepared_as_in_the_pipeline(folder) -> None:
    batches = list(batches_of(folder, RECIPE, SHAPE))
    assert [b.shape for b in batches] == [SHAPE, SHAPE]  # the fifth picture fills no batch
    assert batches[0].dtype == np.float32
    pipeline = OnnxDetector(None, RECIPE, size=(96, 64), thresholds=Thresholds(0.5, 0.5))
    expected = pipeline.network_input(cv2.imread(str(folder / "2.png")))[0]
    assert np.array_equal(batches[1][0], expected)


def test_an_empty_folder_is_told(tmp_path) -> None:
    with pytest.raises(DatasetError, match="holds no pictures"):
        next(batches_of(tmp_path, RECIPE, SHAPE))


def test_a_batch_lies_on_the_device_when_its_address_is_told() -> None:
    device = Device.open(calls=fake_cuda.FakeCuda())
    upload = DeviceUpload(SHAPE, device)
    for value in (1.0, 2.0):
        batch = np.full(SHAPE, value, np.float32)
        address = upload(batch)
        there = (ctypes.c_float * batch.size).from_address(address)
        assert np.array_equal(np.frombuffer(there, np.float32), batch.ravel())


def test_a_table_needs_no_device() -> None:
    feed = feed_for(Calibration(algorithm="entropy", cache="TRT-1"), SHAPE, print, pytest.fail)
    assert isinstance(feed, TableFeed)
    assert feed.known_scales() == b"TRT-1"
    assert feed.next_batch() is None


@pytest.fixture
def build(tmp_path, folder, monkeypatch):
    model = conv_models.yolov8_like(tmp_path / "m.onnx")
    store = tmp_path / "calibration" / "scales.cache"
    uploaded, said = Uploaded(), []
    monkeypatch.setattr(calibrators, "_TELL_EVERY", 2)

    def uploading(calibration, shape, emit):
        return feed_for(calibration, shape, emit, lambda _shape: uploaded)

    monkeypatch.setattr(engine, "feed_for", uploading)

    def run(algorithm="entropy"):
        module = fake_tensorrt_builder.module("8.5")
        version = Version.parse("tensorrt", module.__version__)
        job = Job(
            runtime="tensorrt",
            source=model,
            onnx=model,
            precision="int8",
            strongly_typed=False,
            profile=Profile(min=SHAPE, opt=SHAPE, max=SHAPE),
            dynamic=True,
            workspace=1,
            calibration=Calibration(
                algorithm=algorithm, pictures=Pictures(folder=folder, recipe=RECIPE, store=store)
            ),
            out=tmp_path / "engine",
        )
        built = engine.build_engine(
            TensorRt(module, version, features_of(version)),
            Job.model_validate_json(job.model_dump_json()),
            lambda kind, **fields: said.append((kind, fields)),
        )
        return json.loads(built.data)

    return run, uploaded, said, store


@pytest.mark.parametrize(
    ("algorithm", "base"),
    [("entropy", "IInt8EntropyCalibrator2"), ("minmax", "IInt8MinMaxCalibrator")],
)
def test_tensorrt_calibrates_on_our_pictures_and_its_scales_are_kept(
    build, algorithm, base
) -> None:
    run, uploaded, said, store = build
    asked = run(algorithm)
    assert asked["calibrated_on"] == [4096, 8192]
    assert asked["algorithm"] == base
    assert len(uploaded.batches) == 2
    assert store.read_bytes() == b"TRT-8502-found"
    assert ("say", {"text": "calibrating: 4 pictures"}) in said


def test_kept_scales_are_used_the_next_time(build) -> None:
    run, uploaded, _, _ = build
    run()
    asked = run()
    assert asked["calibrated_on"] == []
    assert asked["calibration"] == "TRT-8502-found"
    assert len(uploaded.batches) == 2
