"""No clipping: the greatest magnitude that occurred."""

from edgecount.config import Strict
from edgecount.toolchain.quantize.histogram import Histogram


class Options(Strict):
    """Options of the min-max calibrator: none."""


def create(options: Options) -> "MinMax":  # noqa: ARG001 - the contract of a calibrator
    """A min-max calibrator."""
    return MinMax()


class MinMax:
    """Keeps every value: nothing is clipped, and rare large values make the steps coarse."""

    def clip(self, histogram: Histogram) -> float:
        """The greatest magnitude."""
        return histogram.peak
