"""Clip the rarest large values: keep a given part of all values."""

import numpy as np
from pydantic import Field
from typing_extensions import Annotated

from edgecount.config import Strict
from edgecount.toolchain.quantize.histogram import Histogram


class Options(Strict):
    """Options of the percentile calibrator."""

    percentile: Annotated[float, Field(gt=0.0, le=100.0)] = Field(
        99.9, description="Per cent of all values, zeros included, that are not clipped."
    )


def create(options: Options) -> "Percentile":
    """A percentile calibrator."""
    return Percentile(options.percentile)


class Percentile:
    """The magnitude that ``percentile`` per cent of the values do not exceed."""

    def __init__(self, percentile: float) -> None:
        self._part = percentile / 100.0

    def clip(self, histogram: Histogram) -> float:
        """That magnitude; values are taken as evenly spread within their bin."""
        below = np.cumsum(histogram.counts)
        wanted = self._part * float(below[-1])
        # Where nearly all values are zero, the first bin would clip all the others away.
        bin_ = int(np.searchsorted(below, wanted))
        before = float(below[bin_ - 1]) if bin_ else 0.0
        inside = (wanted - before) / float(histogram.counts[bin_])
        return min((bin_ + inside) * histogram.width, histogram.peak)
