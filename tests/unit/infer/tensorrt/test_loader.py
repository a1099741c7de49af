import pytest
from support import engines

from edgecount.errors import EngineError, ModelError
from edgecount.infer.tensorrt import loader
from edgecount.infer.tensorrt.plan_file import PlanFile


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_inputs_and_outputs_are_the_same_in_every_version(tmp_path, flavour):
    path = engines.write(tmp_path / "a.engine", engines.network(extra=True), flavour)
    loaded = loader.load(path, engines.tensorrt(flavour))
    found = [(t.name, t.is_input, t.dtype.name, t.shape) for t in loaded.api.tensors]
    assert found == [
        ("images", True, "float32", (1, 3, 32, 32)),
        ("map", False, "float32", (1, 6, 4, 4)),
        ("output", False, "float32", (1, 16, 6)),
    ]
    assert loaded.api.range_of("images") is None


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_the_profile_of_an_open_input_is_told(tmp_path, flavour):
    model = engines.network(dynamic=True)
    path = engines.write(tmp_path / "a.engine", model, flavour, profiles=[engines.profile(4)])
    loaded = loader.load(path, engines.tensorrt(flavour))
    allowed = loaded.api.range_of("images")
    assert allowed is not None
    assert (allowed.least, allowed.most) == ((1, 3, 32, 32), (4, 3, 32, 32))
    assert allowed.holds((2, 3, 32, 32))
    assert not allowed.holds((5, 3, 32, 32))
    assert loaded.api.most_contexts == (1 if flavour in ("8.2", "8.6") else None)


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_an_engine_of_another_version_is_refused_with_tensorrts_own_reason(tmp_path, flavour):
    other = "8.2" if flavour != "8.2" else "8.6"
    path = engines.write(tmp_path / "old.engine", engines.network(), other)
    with pytest.raises(EngineError) as caught:
        loader.load(path, engines.tensorrt(flavour))
    message = str(caught.value)
    assert "old.engine" in message
    assert "not compatible with this version of TensorRT" in message
    assert "build it here with 'edgecount build'" in message


def test_bytes_that_are_no_engine_are_refused(tmp_path):
    (tmp_path / "no.engine").write_bytes(b"no engine at all")
    with pytest.raises(EngineError, match="Magic tag does not match"):
        loader.load(tmp_path / "no.engine", engines.tensorrt("10.3"))


def test_plugins_are_registered_where_there_are_any(tmp_path):
    for flavour, calls in (("8.2", [("init_libnvinfer_plugins",)]), ("rtx", [])):
        path = engines.write(tmp_path / "a.engine", engines.network(), flavour)
        trt = engines.tensorrt(flavour)
        loader.load(path, trt)
        assert trt.module.calls == calls


def test_an_implicit_batch_is_refused(tmp_path):
    path = engines.write(tmp_path / "uff.engine", engines.network(), "8.2", implicit_batch=True)
    with pytest.raises(ModelError, match="implicit batch dimension"):
        loader.load(path, engines.tensorrt("8.2"))


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_vectorised_inputs_are_refused(tmp_path, flavour):
    path = engines.write(tmp_path / "a.engine", engines.network(), flavour, layout="CHW16")
    with pytest.raises(ModelError, match="laid out as CHW16"):
        loader.load(path, engines.tensorrt(flavour))


def test_the_short_label_names_product_and_version():
    assert loader.short_label(engines.tensorrt("10.3")) == "tensorrt 10.3"
    assert loader.short_label(engines.tensorrt("rtx")) == "tensorrt-rtx 1.7"


def test_a_header_is_cut_off_before_tensorrt_sees_the_plan(tmp_path):
    path = engines.write(tmp_path / "a.engine", engines.network(), "10.3")
    text = b'{"task": "detect", "args": {"half": true, "int8": false}}'
    path.write_bytes(len(text).to_bytes(4, "little") + text + path.read_bytes())
    loaded = loader.load(path, engines.tensorrt("10.3"))
    assert loaded.metadata["task"] == "detect"
    assert loaded.precision == "fp16"
    assert PlanFile(path, b"", loaded.metadata).declared_precision == "fp16"
