"""NVIDIA Jetson boards through sysfs and procfs, from Nano (JetPack 4) to Thor (JetPack 7).

CPU and GPU share the memory, so ``gpu_memory_bytes`` is the board's memory: what the kernel
calls available is what a new GPU allocation can get. Every path lies under an injected root,
so that recorded trees can stand in for boards.
"""

import re
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from edgecount.observe.telemetry.base import Reading

_GPU_NODES = frozenset({"gv11b", "gp10b", "ga10b", "gb10b", "gm20b", "gpu"})
# Cooling devices that hold clocks down when active; fans do not. Thermal alerts on
# JetPack ≥ 5, the balancing devices on JetPack 4.
_THROTTLES = re.compile(r"throttle-alert|hot-surface-alert|-balanced$|-throttle$")
_NEVER_THROTTLES = frozenset({"user-throttle"})
# The PMIC of Nano and Xavier NX reports this whatever its temperature.
_PMIC_DUMMY = ("PMIC-Die", 100.0)
_COLDEST, _HOTTEST = -40.0, 150.0
_MODEL = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.MULTILINE)


class Jetson:
    """Reads a Jetson board.

    Args:
        root: Under which ``sys``, ``proc``, ``etc`` and ``var`` lie.
    """

    name = "jetson"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._gpu_load: Optional[Path] = None
        self._over_current: Optional[int] = None

    def read(self) -> Reading:
        return Reading(
            gpu_memory_bytes=self._memory(),
            gpu_utilization_ratio=self._utilization(),
            throttled=self._throttled(),
            power_watts=dict(self._power()),
            temperature_celsius=dict(self._temperatures()),
            power_mode=self._power_mode(),
        )

    def close(self) -> None:
        """Nothing to let go of."""

    def _memory(self) -> Dict[str, float]:
        text = _text(self._root / "proc/meminfo") or ""
        kib = {m[0]: float(m[1]) for m in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
        total, available = kib.get("MemTotal"), kib.get("MemAvailable")
        if total is None or available is None:
            return {}
        return {"total": total * 1024.0, "used": (total - available) * 1024.0}

    def _utilization(self) -> Optional[float]:
        # The driver may bind late, and a path that worked may go when it is loaded again.
        if self._gpu_load is None or _number(self._gpu_load) is None:
            self._gpu_load = self._find_gpu_load()
        load = _number(self._gpu_load) if self._gpu_load else None
        return None if load is None else min(1.0, load / 1000.0)

    def _find_gpu_load(self) -> Optional[Path]:
        for device in sorted(self._root.glob("sys/class/devfreq/*/device")):
            name = (_text(device / "of_node/name") or "").rstrip("\0")
            if name in _GPU_NODES and _number(device / "load") is not None:
                return device / "load"
        return None

    def _throttled(self) -> Optional[bool]:
        """Whether a thermal limit is active, or the supply sagged since the last look."""
        active = self._thermal_limits()
        over_current = self._over_current_events()
        before, self._over_current = self._over_current, over_current
        sagged = None not in (before, over_current) and over_current != before
        if not active and over_current is None:
            return None
        return any(active) or sagged

    def _thermal_limits(self) -> List[bool]:
        active = []
        for device in self._root.glob("sys/class/thermal/cooling_device*"):
            kind = _text(device / "type") or ""
            state = _number(device / "cur_state")
            if _THROTTLES.search(kind) and kind not in _NEVER_THROTTLES and state is not None:
                active.append(state > 0)
        return active

    def _over_current_events(self) -> Optional[int]:
        counts = [_number(p) for p in self._root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")]
        told = [int(c) for c in counts if c is not None]
        return sum(told) if told else None

    def _temperatures(self) -> Iterator[Tuple[str, float]]:
        for zone in sorted(self._root.glob("sys/devices/virtual/thermal/thermal_zone*")):
            kind, millidegrees = _text(zone / "type"), _number(zone / "temp")
            if not kind or millidegrees is None:
                continue  # the zone of a unit that is switched off cannot be read
            degrees = millidegrees / 1000.0
            if _COLDEST < degrees < _HOTTEST and (kind, degrees) != _PMIC_DUMMY:
                yield kind, degrees

    def _power(self) -> Iterator[Tuple[str, float]]:
        for monitor in sorted(self._root.glob("sys/bus/i2c/devices/*/hwmon/hwmon*")):
            if (_text(monitor / "name") or "").startswith("ina"):
                yield from _hwmon_rails(monitor)
        for monitor in sorted(self._root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")):
            yield from _iio_rails(monitor)

    def _power_mode(self) -> Optional[str]:
        """The mode's name, from the files that ``nvpmodel -q`` reads."""
        status = _text(self._root / "var/lib/nvpmodel/status") or ""
        chosen = re.search(r"pmode:(\d+)", status)
        if chosen is None:
            return None
        number = int(chosen.group(1))
        conf = _text(self._root / "etc/nvpmodel.conf") or ""
        names: Dict[int, str] = {int(i): name for i, name in _MODEL.findall(conf)}
        return names.get(number, str(number))


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this machine is a Jetson."""
    if (root / "etc/nv_tegra_release").exists():
        return True
    return "nvidia,tegra" in (_text(root / "proc/device-tree/compatible") or "")


def model(root: Path = Path("/")) -> Optional[str]:
    """The board's name as its device tree tells it."""
    return (_text(root / "proc/device-tree/model") or "").rstrip("\0") or None


def _hwmon_rails(monitor: Path) -> Iterator[Tuple[str, float]]:
    """JetPack ≥ 5. An ina3221 tells mV and mA per rail, an ina238 µW of its only one."""
    power = _number(monitor / "power1_input")
    if power is not None:
        yield _text(monitor / "in1_label") or _text(monitor / "name") or "total", power / 1e6
        return
    for label_file in sorted(monitor.glob("in*_label")):
        number = label_file.name[len("in") : -len("_label")]
        label = _text(label_file)
        volts = _number(monitor / f"in{number}_input")
        amperes = _number(monitor / f"curr{number}_input")
        if label and label != "NC" and volts is not None and amperes is not None:
            yield label, volts * amperes / 1e6


def _iio_rails(monitor: Path) -> Iterator[Tuple[str, float]]:
    """JetPack 4: mW per rail."""
    for label_file in sorted(monitor.glob("rail_name_*")):
        number = label_file.name[len("rail_name_") :]
        label, power = _text(label_file), _number(monitor / f"in_power{number}_input")
        if label and power is not None:
            yield label, power / 1000.0


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> Optional[float]:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
