"""The driver layer on a real device, through cuda-python and through ctypes."""

import ctypes
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from edgecount.errors import EngineError
from edgecount.infer.cuda import _bindings
from edgecount.infer.cuda._libcuda import LibCuda
from edgecount.infer.cuda.driver import Device, properties
from edgecount.infer.cuda.memory import MemoryBudget

pytestmark = pytest.mark.gpu

SOURCE = r"""
extern "C" __global__ void add(int *values, int count, int more) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] += more;
}
extern "C" __global__ void fault(int *nowhere) { nowhere[threadIdx.x] = 1; }
"""


@pytest.fixture(scope="module", autouse=True)
def _needs_a_device() -> None:
    try:
        properties()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["installed", "ctypes"])
def device(request: pytest.FixtureRequest):
    calls = _bindings.load()
    if request.param == "ctypes":
        calls = LibCuda(ctypes.CDLL("libcuda.so.1"))
    with Device.open(0, calls) as opened:
        yield opened


def compiled(device: Device, tmp_path) -> bytes:
    source, image = tmp_path / "k.cu", tmp_path / "k.cubin"
    source.write_text(SOURCE)
    arch = device.properties.arch
    subprocess.run(["nvcc", "-cubin", f"-arch={arch}", "-o", str(image), str(source)], check=True)
    return image.read_bytes()


def test_properties_are_plausible(device: Device) -> None:
    found = device.properties
    print(found)
    assert found.memory_bytes > 1 << 30
    assert found.multiprocessors > 0
    assert found.capability >= (5, 3)
    assert 0 < device.free_bytes() <= found.memory_bytes


@pytest.mark.parametrize("graph", [False, True])
def test_a_kernel_runs_between_copies(device: Device, tmp_path, graph: bool) -> None:
    function = device.module(compiled(device, tmp_path)).function("add")
    stream, other, event = device.stream(-1), device.stream(), device.event()
    host, memory = device.pinned(4096), device.allocate(4096)
    numbers = host.array.view(np.int32)
    numbers[:] = np.arange(1024)

    def work() -> None:
        arguments = ctypes.c_void_p(memory.pointer), ctypes.c_int(1024), ctypes.c_int(5)
        stream.launch(function, (8, 1, 1), (128, 1, 1), arguments)

    stream.upload(memory.pointer, host.pointer, 4096)
    if graph:
        recorded = device.graph(stream, work)
        recorded.launch(stream)
        recorded.launch(stream)
    else:
        work()
        work()
    stream.record(event)
    other.wait(event)
    other.download(host.pointer, memory.pointer, 4096)
    other.synchronize()
    assert event.done()
    assert numbers.tolist() == [n + 10 for n in range(1024)]


def test_events_time_the_device(device: Device) -> None:
    stream = device.stream()
    start, end = device.event(timing=True), device.event(timing=True, blocking=True)
    memory = device.allocate(256 << 20)
    stream.record(start)
    stream.fill(memory.pointer, 1, memory.size)
    stream.record(end)
    end.synchronize()
    assert 1e-6 < end.since(start) < 1.0


def test_too_much_memory_is_refused_by_driver_and_budget(device: Device) -> None:
    with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        device.allocate(device.properties.memory_bytes * 2)
    device.limit_memory(MemoryBudget(device.properties.memory_bytes, 0.001))
    with pytest.raises(EngineError, match="0% of the device's"):
        device.allocate(device.properties.memory_bytes // 100)


def test_after_a_fault_only_a_new_process_can_open_the_device(device: Device, tmp_path) -> None:
    """In processes of their own: other tests' contexts must not fall with theirs."""
    image = tmp_path / "image"
    image.write_bytes(compiled(device, tmp_path))
    program = f"""
        import ctypes, pathlib
        from edgecount.errors import DeviceLostError
        from edgecount.infer.cuda.driver import Device
        image = pathlib.Path({str(image)!r}).read_bytes()
        device = Device.open()
        stream, memory = device.stream(), device.allocate(4096)
        module = device.module(image)
        arguments = ctypes.c_void_p(memory.pointer), ctypes.c_int(1024), ctypes.c_int(5)
        stream.launch(module.function("add"), (8, 1, 1), (128, 1, 1), arguments)
        stream.synchronize()
        print("adds")
        stream.launch(module.function("fault"), (1, 1, 1), (32, 1, 1), [ctypes.c_void_p(16)])
        try:
            stream.synchronize()
        except DeviceLostError as error:
            print("lost", error)
        device.destroy()
        try:
            Device.open()
        except DeviceLostError as error:
            print("again", error)
    """
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
        )
        print(done.stdout, done.stderr)
        adds, lost, again = done.stdout.splitlines()
        assert adds == "adds"
        assert lost.startswith("lost CUDA failed while waiting for a stream")
        assert again.startswith("again CUDA failed while opening the device")
