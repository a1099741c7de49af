"""What the service has built in the background is what it finds in the cache afterwards."""

import time
from pathlib import Path
from typing import Tuple

import pytest
from support import onnx_models

from edgecount.config import Settings
from edgecount.infer.base import BackendSpec
from edgecount.infer.tensorrt import device, versions
from edgecount.infer.tensorrt.backend import key_of
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.child import ChildBuild, build_command
from edgecount.infer.tensorrt.keeper import Outcome
from edgecount.infer.tensorrt.manifest import BuildKey
from edgecount.infer.tensorrt.versions import TensorRt
from edgecount.runtime import backends
from edgecount.runtime.plan import prepare

# Builds have the least claim to a busy machine's processor.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
SIDE = 64


@pytest.fixture(scope="module")
def trt() -> TensorRt:
    pytest.importorskip("tensorrt_rtx", reason="needs pip install tensorrt-rtx-cu13")
    return versions.find("tensorrt_rtx")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv("EDGECOUNT_CACHE", str(tmp_path / "cache"))
    return EngineCache(tmp_path / "cache")


def wanted(model: dict, cameras: int, trt: TensorRt) -> Tuple[BackendSpec, BuildKey]:
    named = [{"name": f"c{n}", "source": f"{n}.avi"} for n in range(cameras)]
    plan = prepare(Settings.model_validate({"model": model, "cameras": named}), lambda *_: None)
    spec = backends._spec(plan, lambda *_: None)
    return spec, key_of(spec, trt, device.look())


def build(spec: BackendSpec, key: BuildKey) -> Outcome:
    child = ChildBuild(build_command(str(spec.path), key, spec.settings.precision))
    deadline = time.monotonic() + 500.0
    while time.monotonic() < deadline:
        outcome = child.poll()
        if outcome is not None:
            return outcome
        time.sleep(0.05)
    child.stop()
    raise AssertionError("the build does not end")


@pytest.mark.parametrize("cameras", [1, 3])
def test_the_shipped_model(trt: TensorRt, cache: EngineCache, cameras: int) -> None:
    spec, key = wanted({"name": "head-n"}, cameras, trt)
    assert key.profile.max[0] == cameras
    assert cache.lookup(key).entry is None
    assert build(spec, key) == Outcome(None)
    found = cache.lookup(key)
    assert found.reason is None
    assert found.entry is not None
    assert found.entry.manifest.key == key
    assert found.entry.read()


def test_a_file_of_the_users_own_without_a_recipe(
    trt: TensorRt, cache: EngineCache, tmp_path: Path
) -> None:
    metadata = onnx_models.ultralytics_metadata(["person"], SIDE, SIDE)
    path = tmp_path / "own model.onnx"
    onnx_models.spot_model(path, "yolov8", width=SIDE, height=SIDE, metadata=metadata)
    spec, key = wanted({"path": str(path), "precision": "fp32"}, 1, trt)
    assert build(spec, key) == Outcome(None)
    assert cache.lookup(key).reason is None


def test_a_model_that_cannot_be_built_says_why_in_one_sentence(
    trt: TensorRt, cache: EngineCache, tmp_path: Path
) -> None:
    path = onnx_models.spot_model(tmp_path / "m.onnx", "yolox", width=SIDE, height=SIDE)
    onnx_models.write_recipe(path, "yolox", width=SIDE, height=SIDE)
    spec, key = wanted({"path": str(path), "precision": "int8"}, 1, trt)
    error = build(spec, key).error
    assert error is not None
    assert "is not quantised" in error
    assert "Traceback" not in error
    assert cache.lookup(key).entry is None
