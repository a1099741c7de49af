"""The host: memory, CPU and, where the kernel tells them, temperatures."""

from typing import Dict

import psutil

from edgecount.observe.telemetry.base import Reading


class Host:
    """Reads the host through psutil.

    Args:
        temperatures: Whether to report temperatures; not where another source does.
    """

    name = "host"

    def __init__(self, temperatures: bool = True) -> None:
        self._temperatures = temperatures
        # The first call has nothing to compare with and returns 0.
        psutil.cpu_percent(interval=None)

    def read(self) -> Reading:
        memory = psutil.virtual_memory()
        return Reading(
            host_memory_bytes={"total": memory.total, "available": memory.available},
            host_cpu_ratio=psutil.cpu_percent(interval=None) / 100.0,
            temperature_celsius=_temperatures() if self._temperatures else {},
        )

    def close(self) -> None:
        """Nothing to let go of."""


def _temperatures() -> Dict[str, float]:
    """The hottest sensor of each chip: a 64-core server would have 64 series otherwise."""
    if not hasattr(psutil, "sensors_temperatures"):
        return {}
    chips = psutil.sensors_temperatures()
    return {chip: max(s.current for s in sensors) for chip, sensors in chips.items() if sensors}
