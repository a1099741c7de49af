"""What a good score is for the detector at hand, learnt per camera while it runs.

Scores of detectors are not comparable: 0.6 is a sure head from one network and a false
alarm from another. So the tracker asks for ranks: the score below which a given share of
the scores lies with which confirmed tracks were matched lately. A histogram of integers
gives them, so that neither the order of detections nor the machine matters.
"""

from typing import Tuple

import numpy as np

from edgecount.records import Float32Array, Int64Array

_BINS = 256
_PRIOR = 64  # so many scores are assumed at the start
_MEMORY = 8192  # when there are more, all counts are halved
_REFRESH = 32  # levels are computed again after so many scores


class ScoreLevels:
    """A slowly forgetting histogram of scores.

    Args:
        floor: The detector's own threshold: all that is assumed at the start, and no level
            is lower.
        shares: The levels to give, as shares of the scores that lie below.
    """

    def __init__(self, floor: float, shares: Tuple[float, ...]) -> None:
        self._floor = min(int(floor * _BINS), _BINS - 1)
        self._shares = np.array(shares)
        self._counts: Int64Array = np.zeros(_BINS, np.int64)
        self._counts[self._floor] = _PRIOR
        self._news = 0
        self._levels = self._compute()

    def observe(self, scores: Float32Array) -> None:
        """Add scores: (N,) float32 in 0..1."""
        bins = np.maximum((scores * np.float32(_BINS)).astype(np.int64), self._floor)
        self._counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
        self._news += len(scores)
        if self._news >= _REFRESH:
            self._news = 0
            if self._counts.sum() > _MEMORY:
                self._counts >>= 1
            self._levels = self._compute()

    def levels(self) -> Float32Array:
        """Give the level of each share: (S,) float32, multiples of 1/256."""
        return self._levels

    def _compute(self) -> Float32Array:
        cumulated = self._counts.cumsum()
        bins = np.searchsorted(cumulated, self._shares * cumulated[-1])
        levels: Float32Array = bins.astype(np.float32) / np.float32(_BINS)
        return levels
