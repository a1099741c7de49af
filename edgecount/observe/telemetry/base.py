"""What the device says about itself, with one meaning on every platform."""

from dataclasses import dataclass, field
from typing import Mapping, Optional

from typing_extensions import Protocol


@dataclass(frozen=True)
class Reading:
    """One look at the device. What a platform does not tell is absent or None.

    Attributes:
        gpu_memory_bytes: By kind. ``total``: memory that the GPU can use. ``used``: the part
            of it that a new allocation cannot get, whoever holds it (where CPU and GPU share
            memory: total less what the kernel says is available). ``process``: this
            process's part of ``used``, where it can be told.
        gpu_utilization_ratio: Part of the last moment in which the GPU was busy, 0..1.
        throttled: Whether clocks are held down by heat or by the power supply. A power
            budget that was chosen (a power mode, a cap) is not throttling.
        power_watts: By rail.
        temperature_celsius: By thermal zone.
        power_mode: Name of the chosen power mode, e.g. ``MAXN``.
        host_memory_bytes: By kind: ``total`` and ``available``.
        host_cpu_ratio: Part of all cores' time that was used since the last look, 0..1.
    """

    gpu_memory_bytes: Mapping[str, float] = field(default_factory=dict)
    gpu_utilization_ratio: Optional[float] = None
    throttled: Optional[bool] = None
    power_watts: Mapping[str, float] = field(default_factory=dict)
    temperature_celsius: Mapping[str, float] = field(default_factory=dict)
    power_mode: Optional[str] = None
    host_memory_bytes: Mapping[str, float] = field(default_factory=dict)
    host_cpu_ratio: Optional[float] = None

    @property
    def gpu_memory_ratio(self) -> Optional[float]:
        """``used / total``, or None where either is unknown."""
        total = self.gpu_memory_bytes.get("total", 0.0)
        used = self.gpu_memory_bytes.get("used")
        return None if used is None or total <= 0.0 else used / total

    def merge(self, other: "Reading") -> "Reading":
        """Both readings in one; where both know a value, this one's counts."""

        def first(mine: Optional[float], others: Optional[float]) -> Optional[float]:
            return others if mine is None else mine

        return Reading(
            {**other.gpu_memory_bytes, **self.gpu_memory_bytes},
            first(self.gpu_utilization_ratio, other.gpu_utilization_ratio),
            other.throttled if self.throttled is None else self.throttled,
            {**other.power_watts, **self.power_watts},
            {**other.temperature_celsius, **self.temperature_celsius},
            self.power_mode or other.power_mode,
            {**other.host_memory_bytes, **self.host_memory_bytes},
            first(self.host_cpu_ratio, other.host_cpu_ratio),
        )


class TelemetrySource(Protocol):
    """One way to ask the device. Used from one thread; may take tens of milliseconds."""

    name: str

    def read(self) -> Reading:
        """What can be told now; a value that cannot be read is left out."""
        ...

    def close(self) -> None:
        """Let go of the driver. May be called twice."""
        ...
