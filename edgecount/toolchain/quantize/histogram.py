"""The distribution of one tensor's magnitudes, gathered piece by piece.

Bins are a power of two wide and start at zero. A value beyond the last bin makes all bins
twice as wide, by adding neighbours: that is exact, so the result does not depend on the
order of the pieces, on how they were cut, or on which thread counted them. Memory does not
depend on how many values were counted.
"""

import math
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np

from edgecount.records import Float32Array, Int64Array

BINS = 4096
"""Bins while counting; the upper half is in use at least, so 2048 to 4096 remain."""

# Values counted at a time: they stay in the cache, and cv2's float32 counts stay exact.
_CHUNK = 1 << 18
# Narrower bins than this would leave float32.
_LEAST_EXPONENT = -100


@dataclass(frozen=True)
class Histogram:
    """How often each magnitude occurred in one tensor.

    Attributes:
        tensor: Name of the tensor.
        counts: (bins,) int64; bin ``i`` counts values with
            ``i × width ≤ |value| < (i + 1) × width``. The last bin is not empty, unless all are.
        width: Width of a bin, in the tensor's own unit.
        amax: The clipping point that the calibrator chose; 0 where none was chosen yet.
        smallest: Smallest value that occurred.
        largest: Largest value that occurred.
    """

    tensor: str
    counts: Int64Array
    width: float
    amax: float
    smallest: float
    largest: float

    @property
    def peak(self) -> float:
        """The greatest magnitude that occurred."""
        return max(-self.smallest, self.largest)


class Magnitudes:
    """Counts the magnitudes of a tensor's values. Used from one thread.

    Attributes:
        counts: (bins,) int64, of magnitudes below ``2 ** exponent``.
        exponent: See ``counts``.
        smallest: Smallest value so far; infinity before the first.
        largest: Largest value so far; minus infinity before the first.
    """

    def __init__(self, bins: int = BINS) -> None:
        """``bins``: a power of two."""
        self.counts: Int64Array = np.zeros(bins, np.int64)
        self._log_bins = bins.bit_length() - 1
        self.exponent = _LEAST_EXPONENT
        self.smallest = math.inf
        self.largest = -math.inf

    def add(self, values: Float32Array) -> None:
        """Count the values of an array of any shape.

        Raises:
            FloatingPointError: One of them is NaN or infinite; then none is counted.
        """
        if not values.size:
            return
        smallest, largest = float(values.min()), float(values.max())  # NaN if any value is
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            raise FloatingPointError("not all values are finite")
        self.smallest = min(self.smallest, smallest)
        self.largest = max(self.largest, largest)
        peak = max(-smallest, largest)
        if peak:  # frexp's exponent of 0 is 0, as if it were 0.5
            self._reach(math.frexp(peak)[1])
        flat = values.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK]
            self._count(np.abs(chunk) if smallest < 0 else chunk)

    def merge(self, other: "Magnitudes") -> None:
        """Add what another one with as many bins has counted."""
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)
        self._reach(other.exponent)
        self.counts += _coarser(other.counts, self.exponent - other.exponent)

    def histogram(self, tensor: str) -> Optional[Histogram]:
        """What was counted; None before the first value."""
        if self.largest < self.smallest:
            return None
        used = np.flatnonzero(self.counts)[-1] + 1
        return Histogram(
            tensor=tensor,
            counts=self.counts[:used].copy(),
            width=math.ldexp(1.0, self.exponent - self._log_bins),
            amax=0.0,
            smallest=self.smallest,
            largest=self.largest,
        )

    def _reach(self, exponent: int) -> None:
        """Widen the bins so that values below 2 ** exponent have one."""
        if exponent > self.exponent:
            self.counts = _coarser(self.counts, exponent - self.exponent)
            self.exponent = exponent

    def _count(self, magnitudes: Float32Array) -> None:
        # Its bin is floor(value × bins ÷ end) in float64: exact, as both are powers of two.
        end = math.ldexp(1.0, self.exponent)
        bins = len(self.counts)
        found = cv2.calcHist([magnitudes], [0], None, [bins], [0.0, end])
        self.counts += found.reshape(-1).astype(np.int64)


def _coarser(counts: Int64Array, doublings: int) -> Int64Array:
    """The same counts in as many bins, each ``2 ** doublings`` times as wide."""
    bins = len(counts)
    together = 1 << min(doublings, bins.bit_length() - 1)
    wide = np.zeros_like(counts)
    wide[: bins // together] = counts.reshape(-1, together).sum(axis=1)
    return wide
