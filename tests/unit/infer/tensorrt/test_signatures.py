"""The fake has nothing that the real modules lack, so what runs on it can be called there.

Real are ``tensorrt_rtx`` (PyPI: tensorrt-rtx-cu13) and the stubs of TensorRT 10 (PyPI:
tensorrt-stubs, whose folder EDGECOUNT_TENSORRT_STUBS names: installed into the environment
it would look like TensorRT itself). TensorRT 8 is on no index; its flavours follow the
bindings' sources of releases 8.2 and 8.6.
"""

import inspect
from typing import Any, Dict

import pytest
from support import engines, fake_tensorrt, tensorrt_signatures
from support.tensorrt_signatures import Members, members_of_binding

from edgecount.errors import EngineError
from edgecount.infer.tensorrt import journal, loader, versions

CLASSES = ("Runtime", "ICudaEngine", "IExecutionContext", "ILogger", "IErrorRecorder")
ENUMS = (
    "DataType",
    "TensorFormat",
    "TensorIOMode",
    "ExecutionContextAllocationStrategy",
    "ErrorCodeTRT",
)


def real_rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="needs pip install tensorrt-rtx-cu13")


@pytest.fixture(scope="module")
def stubs() -> Dict[str, Members]:
    return tensorrt_signatures.stubs((*CLASSES, *ENUMS))


@pytest.mark.parametrize("flavour", ["11.0", "rtx"])
@pytest.mark.parametrize("name", CLASSES)
def test_the_fake_has_only_what_tensorrt_rtx_has(flavour, name):
    real = members_of_binding(getattr(real_rtx(), name))
    check(fake_class(flavour, name), real)


@pytest.mark.parametrize("name", CLASSES)
def test_the_fake_has_only_what_the_stubs_of_tensorrt_10_have(stubs, name):
    check(fake_class("10.3", name), stubs[name])


@pytest.mark.parametrize("name", ENUMS)
def test_members_of_enumerations(stubs, name):
    fake = set(getattr(fake_tensorrt, name).__members__)
    assert fake <= set(getattr(real_rtx(), name).__members__)
    assert fake <= set(stubs[name])


def test_severities_have_the_real_numbers():
    real = real_rtx().ILogger.Severity.__members__
    assert {k: int(v) for k, v in real.items()} == {s.name: int(s) for s in fake_tensorrt.Severity}


def test_the_fake_of_each_version_has_the_calls_of_that_version_only():
    named, indexed = "num_io_tensors", "num_bindings"
    for flavour in engines.FLAVOURS:
        features = engines.tensorrt(flavour).features
        engine = engines.tensorrt(flavour).module.ICudaEngine
        assert hasattr(engine, named) == features.tensor_names
        assert (hasattr(engine, indexed) or hasattr(engine, "get_binding_index")) == (
            features.bindings
        )


def test_a_call_that_does_not_exist_is_found():
    class Fake:
        def execute_async_v4(self, stream_handle: int) -> bool:
            raise NotImplementedError

    with pytest.raises(AssertionError, match="execute_async_v4"):
        check(Fake, members_of_binding(real_rtx().IExecutionContext))


def test_a_parameter_that_does_not_exist_is_found():
    class Fake:
        def execute_async_v3(self, stream: int) -> bool:
            raise NotImplementedError

    with pytest.raises(AssertionError, match="execute_async_v3"):
        check(Fake, members_of_binding(real_rtx().IExecutionContext))


def test_real_tensorrt_rtx_tells_our_recorder_why_it_refuses(tmp_path):
    real_rtx()
    (tmp_path / "no.engine").write_bytes(b"no engine" * 100)
    with pytest.raises(EngineError, match=r"(?i)TensorRT-RTX 1\.\d.*no\.engine.*serialization"):
        loader.load(tmp_path / "no.engine", versions.find("tensorrt_rtx"))


def test_our_logger_and_recorder_are_taken_by_the_real_module():
    trt = real_rtx()
    kept = journal.Journal()
    logger, recorder = journal.logger(trt, kept), journal.recorder(trt, kept)
    logger.log(trt.ILogger.Severity.ERROR, "from the\nlogger")
    logger.log(trt.ILogger.Severity.INFO, "nothing bad")
    assert recorder.report_error(trt.ErrorCodeTRT.INVALID_STATE, "from the recorder") is False
    assert recorder.num_errors() == 2
    assert recorder.get_error_code(1) == trt.ErrorCodeTRT.INVALID_STATE
    assert recorder.get_error_desc(0) == "from the logger"
    assert not recorder.has_overflowed()
    runtime = trt.Runtime(logger)
    runtime.error_recorder = recorder
    assert runtime.error_recorder is recorder
    assert kept.take() == "from the logger; from the recorder"
    recorder.clear()
    assert kept.take() == "it gives no reason"


def fake_class(flavour: str, name: str) -> type:
    if name == "Runtime":
        return fake_tensorrt.Runtime
    found: type = getattr(fake_tensorrt.module(flavour), name)
    return found


def check(fake: type, real: Members) -> None:
    """Every public member of the fake is a real one; methods with the real parameters."""
    for name, member in inspect.getmembers(fake):
        if name.startswith("_") or name == "Severity":
            continue
        assert name in real, f"{fake.__name__}.{name} does not exist"
        overloads = real[name]
        if not inspect.isfunction(member):
            assert overloads is None, f"{name} is no property"
            continue
        mine = [p for p in inspect.signature(member).parameters if p != "self"]
        assert overloads is not None, f"{name} is a property"
        # Parameters without a name in the binding are shown as arg0, arg1 …
        fits = any(
            len(mine) <= len(o) and all(a == b or b.startswith("arg") for a, b in zip(mine, o))
            for o in overloads
        )
        assert fits, f"{name} takes {overloads}, not {mine}"
