"""Clip where the least information is lost: the divergence of Kullback and Leibler.

After S. Migacz, "8-bit Inference with TensorRT" (GTC 2017, pp. 28-38), which TensorRT's
``IInt8EntropyCalibrator2`` is made of. For each clipping point the distribution of the
magnitudes, with all that is clipped moved into its last bin, is compared with what is left of
it after quantisation to 128 levels; the point with the least divergence is taken.

The talk computes each candidate from scratch. Here all are computed at once: within one level
the quantised distribution is constant, so that the divergence is a sum over 128 levels of
differences of prefix sums.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import Annotated

from edgecount.config import Strict
from edgecount.records import Int64Array
from edgecount.toolchain.quantize.histogram import Histogram

_Floats = NDArray[np.float64]


class Options(Strict):
    """Options of the entropy calibrator."""

    levels: Annotated[int, Field(ge=2)] = Field(
        128, description="Quantised magnitudes: 0 to 127 for int8."
    )
    bins: Annotated[int, Field(ge=2)] = Field(
        2048, description="Bins of the distribution at most; finer ones are added up in pairs."
    )


def create(options: Options) -> "Entropy":
    """An entropy calibrator."""
    return Entropy(options.levels, options.bins)


class Entropy:
    """The clipping point whose quantised distribution diverges least from the true one."""

    def __init__(self, levels: int = 128, bins: int = 2048) -> None:
        self._levels = levels
        self._bins = bins

    def clip(self, histogram: Histogram) -> float:
        """The middle of the bin above the best cut, as in the talk, but never above the peak."""
        counts, width = histogram.counts.copy(), histogram.width
        while len(counts) > self._bins:
            counts, width = _paired(counts), 2 * width
        if len(counts) <= self._levels:
            return histogram.peak
        # Zeros are exact at any scale, and ReLU makes many: they shall not outvote the rest.
        counts[0] = counts[1]
        kept = np.arange(self._levels, len(counts) + 1)
        cost = divergences(counts, kept, self._levels)
        # Of equally good points the one that clips least.
        best = kept[len(cost) - 1 - int(np.argmin(cost[::-1]))]
        return min((float(best) + 0.5) * width, histogram.peak)


def divergences(counts: Int64Array, kept: Int64Array, levels: int) -> _Floats:
    """KL divergence, in nats, of the clipped distribution from its quantised form.

    Args:
        counts: (bins,) int64, at least one above zero.
        kept: (candidates,) int64, numbers of bins that are not clipped, ``levels`` or more each.
        levels: Quantised magnitudes.

    Returns:
        (candidates,) float64; infinite where values are clipped into a bin that was empty.
    """
    weights = counts.astype(np.float64)
    sums, filled = _prefix(weights), _prefix(weights > 0)
    entropy = _prefix(_xlogx(weights))
    total, inside = sums[-1], sums[kept]
    clipped = total - inside
    last = weights[kept - 1]
    # Level k of a candidate with n bins holds the bins from k·n/levels on.
    edges = kept[:, None] * np.arange(levels + 1) // levels
    mass = np.diff(sums[edges], axis=1)
    height = np.log(_or_one(mass) / _or_one(np.diff(filled[edges], axis=1)))
    mass[:, -1] += clipped
    own = entropy[kept - 1] + _xlogx(last + clipped) - total * np.log(total)
    crossed = (mass * height).sum(axis=1) - total * np.log(_or_one(inside))
    cost: _Floats = (own - crossed) / total
    cost[(inside == 0) | ((last == 0) & (clipped > 0))] = np.inf
    return cost


def _paired(counts: Int64Array) -> Int64Array:
    """The sums of neighbours, of the last alone where they are odd."""
    even = np.append(counts, np.int64(0)) if len(counts) % 2 else counts
    pairs: Int64Array = even.reshape(-1, 2).sum(axis=1)
    return pairs


def _prefix(values: "NDArray[np.generic]") -> _Floats:
    """(n + 1,): the sum of the first 0, 1, … n values."""
    return np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))


def _xlogx(values: _Floats) -> _Floats:
    return values * np.log(_or_one(values))


def _or_one(values: _Floats) -> _Floats:
    """The values, with 1 for 0: their logarithm is then 0."""
    return np.where(values > 0, values, 1.0)
