"""Exposes the newest telemetry reading to Prometheus."""

from typing import Callable, Iterator, Mapping, Optional

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from edgecount.observe.telemetry.base import Reading


class DeviceCollector(Collector):
    """The newest reading as metrics; a value that the platform does not tell has no series.

    Args:
        latest: The newest reading, or None where there is none; must return at once.
    """

    def __init__(self, latest: Callable[[], Optional[Reading]]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[GaugeMetricFamily]:
        reading = self._latest()
        if reading is not None:
            yield from _families(reading)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """All families, without samples: registering must not read the device."""
        full = Reading({"used": 0, "total": 1}, 0.0, False, {"": 0}, {"": 0}, "-", {"": 0}, 0.0)
        return _families(full)


def _families(reading: Reading) -> Iterator[GaugeMetricFamily]:
    yield from _labelled(
        "gpu_memory_bytes",
        "GPU memory; used is what a new allocation cannot get, process is this process's part.",
        "kind",
        reading.gpu_memory_bytes,
    )
    yield from _single("gpu_memory_ratio", "Used part of GPU memory.", reading.gpu_memory_ratio)
    yield from _single(
        "gpu_utilization_ratio", "Busy part of the GPU's time.", reading.gpu_utilization_ratio
    )
    throttled = None if reading.throttled is None else float(reading.throttled)
    yield from _single(
        "throttled", "1 while heat or the power supply holds clocks down.", throttled
    )
    yield from _labelled("power_watts", "Power drawn.", "rail", reading.power_watts)
    yield from _labelled("temperature_celsius", "Temperature.", "zone", reading.temperature_celsius)
    modes = {reading.power_mode: 1.0} if reading.power_mode else {}
    yield from _labelled("power_mode_info", "The chosen power mode.", "mode", modes)
    yield from _labelled(
        "host_memory_bytes", "Memory of the host.", "kind", reading.host_memory_bytes
    )
    yield from _single(
        "host_cpu_utilization_ratio", "Used part of all cores' time.", reading.host_cpu_ratio
    )


def _single(name: str, text: str, value: Optional[float]) -> Iterator[GaugeMetricFamily]:
    if value is not None:
        yield GaugeMetricFamily(f"edgecount_{name}", text, value=value)


def _labelled(
    name: str, text: str, label: str, values: Mapping[str, float]
) -> Iterator[GaugeMetricFamily]:
    if values:
        family = GaugeMetricFamily(f"edgecount_{name}", text, labels=(label,))
        for key, value in sorted(values.items()):
            family.add_metric((key,), value)
        yield family
