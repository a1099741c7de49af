"""Discrete NVIDIA GPUs through NVML (the package nvidia-ml-py, optional).

Not for Jetsons: there NVML is absent or initialises and then tells nothing. So this
source is taken only when it can read what it promises, memory.
"""

import os
from types import ModuleType
from typing import Any, Callable, Dict, Optional, Tuple, Union

from edgecount.observe.telemetry.base import Reading

# nvmlClocksEventReasons: HwSlowdown, SwThermalSlowdown, HwThermalSlowdown and
# HwPowerBrakeSlowdown. Not SwPowerCap (0x4): a data-centre card at its cap is doing its work.
_HELD_DOWN = 0x08 | 0x20 | 0x40 | 0x80
_TEMPERATURE_GPU = 0


class Nvml:
    """Reads one GPU.

    Args:
        nvml: The module ``pynvml``.
        index: Which GPU, as NVML counts them.

    Raises:
        nvml.NVMLError: The driver is not there, or does not tell how much memory there is.
    """

    name = "nvml"

    def __init__(self, nvml: ModuleType, index: int = 0) -> None:
        self._nvml: Any = nvml
        self._open = False
        self._nvml.nvmlInit()
        self._open = True
        try:
            self._gpu = self._nvml.nvmlDeviceGetHandleByIndex(index)
            self._nvml.nvmlDeviceGetMemoryInfo(self._gpu)
        except self._nvml.NVMLError:
            self.close()
            raise

    def read(self) -> Reading:
        nvml, gpu = self._nvml, self._gpu
        utilization = self._told(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100.0)
        reasons = self._told(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))
        power = self._told(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000.0)
        heat = self._told(lambda: nvml.nvmlDeviceGetTemperature(gpu, _TEMPERATURE_GPU))
        return Reading(
            gpu_memory_bytes=self._memory(),
            gpu_utilization_ratio=utilization,
            throttled=None if reasons is None else bool(int(reasons) & _HELD_DOWN),
            power_watts={} if power is None else {"gpu": power},
            temperature_celsius={} if heat is None else {"gpu": float(heat)},
        )

    def identity(self) -> Tuple[str, str, Tuple[int, int]]:
        """Name, driver version and compute capability."""
        name = self._nvml.nvmlDeviceGetName(self._gpu)
        driver = self._nvml.nvmlSystemGetDriverVersion()
        major, minor = self._nvml.nvmlDeviceGetCudaComputeCapability(self._gpu)
        return _str(name), _str(driver), (int(major), int(minor))

    def close(self) -> None:
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()

    def _memory(self) -> Dict[str, float]:
        nvml, gpu = self._nvml, self._gpu
        total = self._told(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).total)
        # Free, not used: the first interface leaves what the driver reserves out of used.
        free = self._told(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).free)
        own = self._told(self._own_memory)
        kinds = {"total": total, "process": own}
        if total is not None and free is not None:
            kinds["used"] = total - free
        return {kind: float(value) for kind, value in kinds.items() if value is not None}

    def _own_memory(self) -> Optional[float]:
        """Memory of this process; None in a container, whose pids the driver does not know."""
        processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._gpu)
        own = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
        return float(own[0]) if own and own[0] is not None else None

    def _told(self, ask: Callable[[], Optional[float]]) -> Optional[float]:
        """An answer, or None where this GPU does not support the question."""
        try:
            return ask()
        except self._nvml.NVMLError:
            return None


def _str(text: Union[str, bytes]) -> str:
    """Older releases of the package return bytes."""
    return text.decode() if isinstance(text, bytes) else text


def open_nvml(index: int = 0) -> Optional[Nvml]:
    """The GPU through NVML, or None where package, driver or GPU are not there."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return Nvml(pynvml, index)
    except pynvml.NVMLError:
        return None
