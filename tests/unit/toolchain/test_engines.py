import hashlib

import onnx
import pytest
from support import engines, fake_tensorrt, onnx_models
from support.fake_cuda import FakeCuda

from edgecount.errors import ConfigError, EngineError
from edgecount.infer import recipe as recipes
from edgecount.infer.cuda.driver import Device
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.choice import wanted_key
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.manifest import Manifest
from edgecount.infer.tensorrt.profile import Profile
from edgecount.toolchain.engines import engine_for, is_engine, onnx_for

SIDE = 64
FACTS = DeviceFacts("Orin", (8, 7), "540", "12.6", True)


@pytest.fixture
def model(tmp_path):
    path = onnx_models.spot_model(tmp_path / "mine.onnx", "yolox", width=SIDE, height=SIDE)
    onnx_models.write_recipe(path, "yolox", width=SIDE, height=SIDE)
    return path


def publish(model, cache, trt, precision, built_at):
    shape = (1, 3, SIDE, SIDE)
    profile = Profile(min=shape, opt=shape, max=shape)
    recipe = recipes.find(None, model)[1]
    key = wanted_key(model, recipe, trt.version, FACTS, asked=precision, profile=profile)
    data = fake_tensorrt.plan(onnx.load(str(model)), "10.3")
    manifest = Manifest(
        key=key,
        engine_sha256=hashlib.sha256(data).hexdigest(),
        engine_bytes=len(data),
        built_at=built_at,
        build_seconds=1.0,
        workspace_used=1,
        layers_of="engine",
        edgecount="0",
    )
    return EngineCache(cache).publish(manifest, data)


def test_a_models_newest_engine_is_taken_or_the_one_of_a_precision(tmp_path, model):
    calls = FakeCuda()
    trt = engines.tensorrt("10.3", calls)
    environ = {"EDGECOUNT_CACHE": str(tmp_path / "cache")}
    publish(model, tmp_path / "cache", trt, "fp32", "2026-11-24T10:00:00+00:00")
    publish(model, tmp_path / "cache", trt, "fp16", "2026-11-24T11:00:00+00:00")
    device = Device.open(0, calls)
    for asked, found in ((None, "fp16"), ("fp32", "fp32")):
        chosen = engine_for(str(model), precision=asked, trt=trt, environ=environ)
        assert chosen.size == (SIDE, SIDE)
        assert chosen.open(device, device.stream()).precision == found
    with pytest.raises(EngineError, match=r"no int8 engine of .* build one with"):
        engine_for(str(model), precision="int8", trt=trt, environ=environ)


def test_an_own_model_can_be_named_as_model_list_does(tmp_path, model):
    calls = FakeCuda()
    trt = engines.tensorrt("10.3", calls)
    environ = {"EDGECOUNT_CACHE": str(tmp_path / "cache")}
    entry = publish(model, tmp_path / "cache", trt, "fp16", "2026-11-24T10:00:00+00:00")
    chosen = engine_for(entry.manifest.key.model, trt=trt, environ=environ)
    assert (chosen.path, chosen.size) == (entry.engine, (SIDE, SIDE))
    with pytest.raises(ConfigError, match="no-such-model does not exist"):
        engine_for("no-such-model", trt=trt, environ=environ)


def test_an_engine_file_is_opened_as_it_is(tmp_path):
    calls = FakeCuda()
    trt = engines.tensorrt("8.2", calls)
    path = engines.write(tmp_path / "a.engine", engines.network(), "8.2")
    assert is_engine(str(path))
    chosen = engine_for(str(path), trt=trt)
    assert (chosen.path, chosen.size) == (path, (engines.SIDE, engines.SIDE))
    device = Device.open(0, calls)
    assert chosen.open(device, device.stream()).output_shape(1) == (1, 16, 6)


def test_a_model_without_a_recipe_cannot_be_run_by_onnx_runtime(tmp_path):
    path = onnx_models.spot_model(tmp_path / "bare.onnx", "yolox")
    with pytest.raises(ConfigError, match="has no recipe"):
        onnx_for(str(path))
