"""How far the counts of the last minute can be trusted.

Most miscounts leave a trace: a track that is lost or appears beside a line, away from the
picture's edge; a track that had to be stitched there; a crossing that was never seen to its
end. Each trace, and each plain crossing, has a mean number of miscounts that it brings,
measured on clips and simulated scenes with known truth. Their sum over a minute is the mean
of a Poisson distribution, and the confidence is the chance that not more than ``allowed`` of
that minute's crossings were miscounted.
"""

from collections import deque
from dataclasses import dataclass
from math import exp
from typing import Deque, Mapping, Optional, Tuple

from typing_extensions import Literal

Trace = Literal["crossed", "appeared", "lost", "stitched", "unfinished"]

# Mean number of miscounts for each trace: least squares over minutes with known truth, times
# 1.3 so that "good" errs on the safe side (docs/accuracy.md).
_MISCOUNTS: Mapping[str, float] = {
    "crossed": 0.012,
    "appeared": 0.05,
    "lost": 0.6,
    "stitched": 0.25,
    "unfinished": 0.05,
}
GOOD = 0.95


@dataclass(frozen=True)
class Confidence:
    """What is thought of the counts of the last minute.

    Attributes:
        expected_errors: Mean number of miscounts.
        allowed: Miscounts that still count as right.
        probability: Chance that not more than ``allowed`` happened, 0..1.
    """

    expected_errors: float
    allowed: int
    probability: float

    @property
    def good(self) -> bool:
        """Whether the counts can be relied on, within ``allowed``."""
        return self.probability >= GOOD


class ErrorForecast:
    """Collects the traces of one camera over a sliding window.

    Args:
        window_s: Length of the window, seconds.
        miscounts: Mean number of miscounts for each trace; the measured ones by default.
    """

    def __init__(
        self, window_s: float = 60.0, miscounts: Optional[Mapping[str, float]] = None
    ) -> None:
        self._window_s = window_s
        self._miscounts = _MISCOUNTS if miscounts is None else miscounts
        self._traces: Deque[Tuple[float, str]] = deque()

    def note(self, trace: Trace, time: float, times: int = 1) -> None:
        """Something happened at stream time ``time``, which does not run backwards."""
        self._traces.extend([(time, trace)] * times)

    def at(self, time: float) -> Confidence:
        """The confidence in the window that ends at stream time ``time``."""
        while self._traces and self._traces[0][0] <= time - self._window_s:
            self._traces.popleft()
        mean = sum(self._miscounts[trace] for _, trace in self._traces)
        allowed = allowed_errors(sum(trace == "crossed" for _, trace in self._traces))
        return Confidence(mean, allowed, _poisson_up_to(allowed, mean))


def allowed_errors(crossings: int) -> int:
    """Stated bound for a minute: one miscount, or 5 % of its crossings where that is more."""
    return max(1, int(0.05 * crossings))


def _poisson_up_to(most: int, mean: float) -> float:
    """P(X ≤ most) for a Poisson variable of that mean."""
    term = total = exp(-mean)
    for k in range(1, most + 1):
        term *= mean / k
        total += term
    return min(total, 1.0)
