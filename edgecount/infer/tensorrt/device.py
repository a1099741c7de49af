"""What an engine is bound to on this machine, found without making a CUDA context."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Tuple

from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import DeviceProperties, properties

_NONE = "none"


@dataclass(frozen=True)
class DeviceFacts:
    """The GPU and what drives it.

    Attributes:
        name: As the driver calls it; ``none`` where there is no GPU.
        capability: Compute capability, None where there is no GPU.
        driver: Version of the driver, or of L4T on a Jetson.
        cuda: CUDA version that the driver supports.
        jetson: Whether it is a Jetson.
    """

    name: str
    capability: Optional[Tuple[int, int]]
    driver: str
    cuda: str
    jetson: bool

    @property
    def sm(self) -> str:
        """Compute capability as text, e.g. ``8.7``; ``none`` where there is no GPU."""
        return _NONE if self.capability is None else "{}.{}".format(*self.capability)


def look(root: Path = Path("/"), gpu: Callable[[], DeviceProperties] = properties) -> DeviceFacts:
    """The facts of the first GPU; those of none where no GPU or driver is there.

    Args:
        root: Under which ``proc`` and ``etc`` lie.
        gpu: Asks the driver. Raises EngineError where there is none.
    """
    l4t = _found(root / "etc/nv_tegra_release", r"R(\d+).*?REVISION: *([\d.]+)")
    driver = l4t or _found(root / "proc/driver/nvidia/version", r"\s(\d{3}\.\d+(?:\.\d+)?)\s")
    try:
        seen = gpu()
    except EngineError:
        return DeviceFacts(_NONE, None, driver or _NONE, _NONE, l4t is not None)
    cuda = "{}.{}".format(*seen.driver)
    return DeviceFacts(seen.name, seen.capability, driver or "unknown", cuda, l4t is not None)


def _found(path: Path, pattern: str) -> Optional[str]:
    """The groups of ``pattern`` in a file, with dots between, or None."""
    try:
        found = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return ".".join(found.groups()) if found else None
