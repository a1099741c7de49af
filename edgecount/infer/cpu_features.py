"""What this machine's processor can do with INT8."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import FrozenSet

CPUINFO = Path("/proc/cpuinfo")

# Instructions that add products of bytes in 32 bits. x86: Intel SDM vol. 2; Arm: Arm ARM, FEAT_*.
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8"})
_AMX = frozenset({"amx_int8"})
_ARM = frozenset({"asimddp", "i8mm"})
_AVX2 = "avx2"
_MODEL_KEYS = ("model name", "CPU part")
_FLAG_KEYS = ("flags", "Features")


@dataclass(frozen=True)
class CpuFeatures:
    """A processor, as far as INT8 is concerned.

    Attributes:
        model: Its name.
        flags: Its features, as the kernel names them.
    """

    model: str
    flags: FrozenSet[str]

    @property
    def fast_int8(self) -> bool:
        """Whether it multiplies bytes faster than floats: VNNI, AMX, or Arm's dot product."""
        return bool(self.flags & (_VNNI | _AMX | _ARM))

    @property
    def saturates(self) -> bool:
        """Whether ONNX Runtime's INT8 products may saturate here.

        AVX2 alone adds pairs of u8×s8 products in 16 bits (``vpmaddubsw``), which clips sums
        beyond ±32767: results may be many quantised steps away.
        """
        return _AVX2 in self.flags and not self.flags & (_VNNI | _AMX)

    def describe(self) -> str:
        """One line for reports."""
        found = sorted(self.flags & (_VNNI | _AMX | _ARM))
        if found:
            return f"{self.model}: INT8 by {', '.join(found)}, exact"
        if self.saturates:
            return f"{self.model}: AVX2 without VNNI, INT8 products may saturate"
        return f"{self.model}: no INT8 instructions"


def read(path: Path = CPUINFO) -> CpuFeatures:
    """The processor of this machine; without features where the kernel does not tell."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model, flags = platform.machine(), frozenset()  # type: str, FrozenSet[str]
    for line in reversed(lines):  # all cores are alike: the first one decides
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in _MODEL_KEYS and value:
            model = value
        elif key in _FLAG_KEYS:
            flags = frozenset(value.split())
    return CpuFeatures(model, flags)
