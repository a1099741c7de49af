"""Frames per second, and how steady they are. Pure: the caller brings the clock."""

import bisect
import math
import threading
from collections import deque
from typing import Deque, List, Optional, Sequence

_SLICE_S = 1.0
_SLICES = 10


class RateMeter:
    """The rate of one camera over the last seconds.

    ``tick`` is called by one thread for every processed frame, the rest by any thread.
    Rates come from the distances between ticks, not from counts per window, so that a
    steady 25 FPS reads 25.0 and not sometimes 24.8 and sometimes 25.2.

    Args:
        window_s: Seconds that ``fps`` looks back.
    """

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        # One slice more than is judged: the first one needs the tick before it.
        self._keep_s = max(window_s, (_SLICES + 1) * _SLICE_S)
        self._ticks: Deque[float] = deque()
        self._lock = threading.Lock()

    def tick(self, now: float) -> None:
        """A frame was processed at ``now`` (monotonic seconds, never falling)."""
        with self._lock:
            ticks = self._ticks
            ticks.append(now)
            while ticks[0] < now - self._keep_s:
                ticks.popleft()

    def fps(self, now: float) -> float:
        """Frames per second over the window; falls towards 0 when frames stop coming."""
        ticks = self._since(now - self._window_s)
        if len(ticks) < 2:
            return 0.0
        span = ticks[-1] - ticks[0]
        if span <= 0.0:
            return 0.0
        late = max(0.0, (now - ticks[-1]) - span / (len(ticks) - 1))
        return (len(ticks) - 1) / (span + late)

    def fluctuation(self, now: float) -> Optional[float]:
        """Coefficient of variation of the per-second rates of the last ten seconds.

        None until ten seconds have been seen.
        """
        start = now - _SLICES * _SLICE_S
        ticks = self._since(start - _SLICE_S)
        if not ticks or ticks[0] > start:
            return None
        return _variation([_slice_rate(ticks, start + i * _SLICE_S) for i in range(_SLICES)])

    def _since(self, start: float) -> List[float]:
        with self._lock:
            return [t for t in self._ticks if t > start]


def _slice_rate(ticks: Sequence[float], start: float) -> float:
    """Ticks in the slice that begins after ``start``, per second.

    Measured from the last tick before the slice to its last one, where there is one before.
    """
    first = bisect.bisect_right(ticks, start)
    end = bisect.bisect_right(ticks, start + _SLICE_S)
    if first == end:
        return 0.0
    seconds = ticks[end - 1] - ticks[first - 1] if first else _SLICE_S
    return (end - first) / seconds if seconds > 0.0 else 0.0


def _variation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    if mean == 0.0:
        return 0.0
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)) / mean
