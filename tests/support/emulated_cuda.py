"""The CUDA backend on a CPU: the lazy fake driver, emulated kernels, a network on the host."""

import ctypes
from typing import Any, Callable, List, Mapping, Optional, Tuple

import numpy as np
import pytest
from support.cuda_emulator.emulator import Device as Emulator
from support.fake_cuda import FakeCuda

from edgecount.infer.cuda import driver, postprocess, preprocess, tracker
from edgecount.infer.cuda.driver import Device, Module, Stream
from edgecount.infer.detector import Network

KERNELS = {
    "nms": postprocess.KERNELS,
    "preprocess": preprocess.KERNELS,
    "tracker": tracker.KERNELS,
}


class EmulatedCuda:
    """A driver with kernels. ``load`` stands for ``compiler.load``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, integrated: bool = False) -> None:
        self.calls = FakeCuda(integrated=integrated)
        self._emulator = Emulator()
        kept: List[Any] = []

        class Kept(driver.Arguments):
            """The real driver copies arguments at the launch; here they must live on."""

            def __init__(self, values: Any) -> None:
                super().__init__(values)
                kept.append(self)

        monkeypatch.setattr(driver, "Arguments", Kept)

    def open(self, number: int = 0) -> Device:
        """Stands for ``Device.open``."""
        return Device.open(number, self.calls)

    def load(
        self, device: Device, name: str, defines: Optional[Mapping[str, object]] = None
    ) -> Module:
        """Compile for the host."""
        module = self._emulator.compile(name, KERNELS[name], defines)
        for kernel in KERNELS[name]:
            self.calls.kernels[kernel] = _launcher(kernel, module.function(kernel).call)
        return device.module(name.encode())


def _launcher(name: str, call: Any) -> Callable[..., Callable[[], None]]:
    def launch(shape: Any, shared: int, parameters: int) -> Callable[[], None]:
        grid, block = shape
        sizes = (ctypes.c_uint * 6)(*grid, *block)

        def run() -> None:
            message = call(sizes, shared, 0, parameters)
            assert message is None, f"{name}: {message.decode()}"

        return run

    return launch


class HostNetwork:
    """A network of the CPU backend in the pipeline's slot."""

    name, precision, max_batch = "host", "fp32", None
    input_dtype = output_dtype = np.float32

    def __init__(self, calls: FakeCuda, network: Network, size: Tuple[int, int]) -> None:
        self._calls, self._network = calls, network
        self._shape = (3, size[1], size[0])
        self._per_picture = network.run(np.zeros((1, *self._shape), np.float32)).shape[1:]
        self.batches: List[int] = []
        self.closed = False

    def output_shape(self, batch: int) -> Tuple[int, ...]:
        return (batch, *self._per_picture)

    def enqueue(
        self,
        stream: Stream,
        batch: int,
        input: int,  # noqa: A002
        output: int,
        consumed: Any,
    ) -> None:
        def run() -> None:
            self.batches.append(batch)
            for source, target in zip(
                _floats(input, batch, self._shape), _floats(output, batch, self._per_picture)
            ):
                target[:] = self._network.run(source[None])[0]

        self._calls.enqueue(stream.handle, "network", run)

    def close(self) -> None:
        self.closed = True


def _floats(address: int, batch: int, shape: Tuple[int, ...]) -> Any:
    count = batch * int(np.prod(shape))
    memory = (ctypes.c_float * count).from_address(address)
    return np.ctypeslib.as_array(memory).reshape(batch, *shape)
