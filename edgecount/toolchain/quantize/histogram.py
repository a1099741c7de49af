"""The distribution of one tensor's values over all calibration images."""

from dataclasses import dataclass

from edgecount.records import Int64Array


@dataclass(frozen=True)
class Histogram:
    """How often each magnitude occurred in one tensor.

    Attributes:
        tensor: Name of the tensor.
        counts: (bins,) int64; bin ``i`` counts values with
            ``i × width ≤ |value| < (i + 1) × width``.
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
