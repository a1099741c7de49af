import contextlib
import ctypes
import importlib
import inspect
from typing import Any

import numpy as np
import pytest
from support.fake_cuda import FakeCuda, parameters_of

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.cuda import _bindings, _libcuda
from edgecount.infer.cuda.driver import Arguments, Device


def real_driver() -> Any:
    for name in ("cuda.bindings.driver", "cuda.cuda"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    pytest.skip("cuda-python is not installed")


@pytest.fixture
def calls() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def device(calls: FakeCuda) -> Device:
    return Device.open(0, calls)


FAKED = [n for n, _ in inspect.getmembers(FakeCuda, inspect.isfunction) if n.startswith("cu")]


@pytest.mark.parametrize("name", FAKED)
def test_the_fake_takes_what_the_real_driver_takes(name: str) -> None:
    assert parameters_of(getattr(FakeCuda, name)) == parameters_of(getattr(real_driver(), name))


@pytest.mark.parametrize("name", sorted(_libcuda._PROTOTYPES))
def test_ctypes_functions_take_as_many_values_as_cuda_python_s(name: str) -> None:
    prototype = _libcuda._PROTOTYPES[name]
    given = [p for p in prototype.parameters if not isinstance(p, _libcuda._Out)]
    expected = parameters_of(getattr(real_driver(), name))
    assert expected is not None
    assert len(given) == len(expected)


def test_every_function_that_is_called_exists_in_all_three_bindings() -> None:
    source = inspect.getsource(importlib.import_module("edgecount.infer.cuda.driver"))
    called = {w for w in FAKED if f".{w}(" in source or f".{w})" in source or f".{w}," in source}
    assert len(called) > 30
    bound = set(_libcuda._PROTOTYPES) | set(vars(_libcuda.LibCuda))
    assert called <= bound
    assert all(hasattr(real_driver(), name) for name in called)


def test_lost_device_errors_are_what_cuda_python_calls_them() -> None:
    from edgecount.infer.cuda.driver import LOST

    names = {e.value: e.name for e in real_driver().CUresult}
    assert names[700] == "CUDA_ERROR_ILLEGAL_ADDRESS"
    assert not [
        n for n in LOST if n in names and names[n].endswith(("OUT_OF_MEMORY", "INVALID_VALUE"))
    ]


def test_properties_are_read(device: Device) -> None:
    assert device.properties.name == "Fake"
    assert device.properties.arch == "sm_90"
    assert device.properties.driver == (13, 0)
    assert device.properties.memory_bytes == 1 << 30


def test_a_device_that_is_not_there_is_named(calls: FakeCuda) -> None:
    with pytest.raises(EngineError, match="no CUDA device 3: the driver sees 1"):
        Device.open(3, calls)


def test_no_driver_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bindings, "_LIBRARY", "libcuda-that-is-not-there.so.1")
    with pytest.raises(EngineError, match="install the driver"):
        _bindings.load()


def test_errors_carry_the_driver_s_text(device: Device, calls: FakeCuda) -> None:
    calls.fail["cuMemAlloc"] = 2
    with pytest.raises(EngineError, match=r"allocating 1,024 bytes.*CUDA_ERROR_OUT_OF_MEMORY") as e:
        device.allocate(1024)
    assert not isinstance(e.value, DeviceLostError)


def test_a_sticky_error_means_a_lost_device(device: Device, calls: FakeCuda) -> None:
    event = device.event()
    calls.fail["cuEventSynchronize"] = 700
    with pytest.raises(DeviceLostError, match=r"waiting for the device.*ILLEGAL_ADDRESS"):
        event.synchronize()


def test_bytes_make_the_round_trip(device: Device) -> None:
    stream = device.stream()
    there, back, memory = device.pinned(16), device.pinned(16), device.allocate(16)
    there.array[:] = np.arange(16)
    stream.upload(memory.pointer, there.pointer, 16)
    stream.download(back.pointer, memory.pointer, 16)
    assert back.array[0] == 0xA5, "nothing runs before the host waits"
    stream.synchronize()
    assert back.array.tolist() == list(range(16))


def test_a_stream_waits_for_an_event_of_another(device: Device, calls: FakeCuda) -> None:
    first, second, event = device.stream(), device.stream(), device.event()
    first.fill(device.allocate(4).pointer, 1, 4)
    first.record(event)
    second.wait(event)
    second.fill(device.allocate(4).pointer, 2, 4)
    one, two = calls.find("fill")
    assert calls.before(one, two)
    assert not calls.before(two, one)


def test_an_event_knows_whether_it_is_done_and_when(device: Device) -> None:
    stream = device.stream()
    start, end = device.event(timing=True), device.event(timing=True)
    stream.record(start)
    stream.record(end)
    assert not end.done()
    end.synchronize()
    assert end.done()
    assert end.since(start) > 0


def test_arguments_are_passed_by_address(device: Device, calls: FakeCuda) -> None:
    seen = []

    def kernel(shape: Any, shared: int, parameters: int) -> Any:
        pointers = (ctypes.c_void_p * 2).from_address(parameters)
        values = [ctypes.c_int.from_address(p or 0).value for p in pointers]
        return lambda: seen.append((shape, shared, values))

    calls.kernels["twice"] = kernel
    function = device.module(b"image").function("twice")
    stream, number = device.stream(), ctypes.c_int(5)
    arguments = Arguments([number, ctypes.c_int(7)])
    stream.launch(function, (2, 1, 1), (32, 1, 1), arguments, shared=64)
    number.value = 6
    stream.launch(function, (2, 1, 1), (32, 1, 1), arguments)
    stream.synchronize()
    shape = ((2, 1, 1), (32, 1, 1))
    assert seen == [(shape, 64, [5, 7]), (shape, 0, [6, 7])]
    assert list(arguments) == [number, arguments[1]]
    assert len(arguments) == 2


def test_a_graph_does_its_work_when_it_is_launched(device: Device, calls: FakeCuda) -> None:
    stream, memory = device.stream(), device.allocate(4)
    graph = device.graph(stream, lambda: stream.fill(memory.pointer, 3, 4))
    stream.synchronize()
    assert not calls.find("fill")
    graph.launch(stream)
    graph.launch(stream)
    assert len(calls.find("fill")) == 2


def test_a_capture_that_fails_leaves_the_stream_usable(device: Device, calls: FakeCuda) -> None:
    stream = device.stream()
    calls.fail["cuMemcpyDtoDAsync"] = 900

    def work() -> None:
        stream.copy(1, 2, 3)

    with pytest.raises(EngineError, match="STREAM_CAPTURE_UNSUPPORTED"):
        device.graph(stream, work)
    stream.fill(device.allocate(4).pointer, 1, 4)
    assert calls.find("fill")


def test_closing_the_device_frees_everything(calls: FakeCuda) -> None:
    with Device.open(0, calls) as device:
        stream = device.stream()
        device.allocate(8)
        device.pinned(8, mapped=True)
        device.module(b"image")
        device.event().close()
        graph = device.graph(stream, lambda: None)
    graph.close()
    device.close()
    assert not calls.memory
    assert not calls._graphs
    assert calls.calls["cuModuleUnload"] == calls.calls["cuStreamDestroy"] == 1
    assert calls.calls["cuEventDestroy"] == 1
    assert calls.calls["cuDevicePrimaryCtxRelease"] == 1


def test_a_destroyed_device_can_be_opened_again(calls: FakeCuda) -> None:
    device = Device.open(0, calls)
    device.allocate(8)
    calls.fail.update({"cuMemFree": 700, "cuStreamSynchronize": 700})
    device.destroy()
    assert calls.calls["cuDevicePrimaryCtxReset"] == 1
    Device.open(0, calls).stream().synchronize()


def test_shared_memory_above_the_default_is_asked_for(device: Device, calls: FakeCuda) -> None:
    function = device.module(b"image").function("kernel")
    function.allow_shared(48 * 1024)
    assert not calls.calls["cuFuncSetAttribute"]
    function.allow_shared(100 * 1024)
    assert calls.calls["cuFuncSetAttribute"] == 1
