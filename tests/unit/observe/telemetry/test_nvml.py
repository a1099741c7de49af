"""A fake of the NVML module; a GPU test compares with a real one where there is one."""

# ruff: noqa: N802 - NVML's names

import os
from types import SimpleNamespace

import pytest

from edgecount.observe.telemetry.nvml import Nvml


class FakeNvml:
    class NVMLError(Exception):
        pass

    def __init__(self, reasons=0x4, supported=True, own=True):
        self.reasons = reasons
        self.supported = supported
        self.own = own
        self.open = 0

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def _answer(self, value):
        if not self.supported:
            raise self.NVMLError("Not Supported")
        return value

    def nvmlDeviceGetMemoryInfo(self, gpu):
        return self._answer(SimpleNamespace(total=80e9, free=60e9, used=19e9))

    def nvmlDeviceGetUtilizationRates(self, gpu):
        return self._answer(SimpleNamespace(gpu=37, memory=5))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu):
        return self._answer(self.reasons)

    def nvmlDeviceGetPowerUsage(self, gpu):
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetTemperature(self, gpu, sensor):
        return self._answer(44)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):
        pid = os.getpid() if self.own else 1
        return [SimpleNamespace(pid=pid, usedGpuMemory=2e9)]


def test_what_a_card_tells():
    reading = Nvml(FakeNvml()).read()
    # Used is total less free: what the driver keeps for itself is not to be had either.
    assert reading.gpu_memory_bytes == {"total": 80e9, "used": 20e9, "process": 2e9}
    assert reading.gpu_memory_ratio == 0.25
    assert reading.gpu_utilization_ratio == 0.37
    assert reading.temperature_celsius == {"gpu": 44.0}


def test_what_a_card_does_not_tell_is_absent():
    reading = Nvml(FakeNvml(own=False)).read()
    assert reading.power_watts == {}
    assert "process" not in reading.gpu_memory_bytes


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [(0x0, False), (0x1, False), (0x4, False), (0x8, True), (0x20, True), (0x40 | 0x4, True)],
)
def test_heat_is_throttling_and_a_power_cap_is_not(reasons, throttled):
    assert Nvml(FakeNvml(reasons)).read().throttled is throttled


def test_a_library_that_initialises_and_tells_nothing_is_refused_and_closed():
    nvml = FakeNvml(supported=False)
    with pytest.raises(nvml.NVMLError):
        Nvml(nvml)
    assert nvml.open == 0


def test_close_twice():
    nvml = FakeNvml()
    card = Nvml(nvml)
    card.close()
    card.close()
    assert nvml.open == 0
