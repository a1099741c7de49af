"""One camera, from tracks to events: its counter, its rate, its state."""

import threading
from collections import deque
from statistics import median
from typing import Callable, Deque, List, Mapping, Optional, Tuple

from edgecount.count.counter import CameraCounter
from edgecount.count.totals import CameraTotals
from edgecount.observe.rates import RateMeter
from edgecount.records import (
    CountEvent,
    FrameInfo,
    LineTotals,
    Snapshot,
    Tracked,
    ZoneState,
)

_LATENCIES = 64


class Lane:
    """The counting side of one camera.

    ``count`` is called by the collecting thread only; everything else by any thread.
    """

    def __init__(self, camera: str, counter: CameraCounter, clock: Callable[[], float]) -> None:
        """Wrap ``counter``; ``clock`` is monotonic, for the rate."""
        self.camera = camera
        self.rate = RateMeter()
        self._counter = counter
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: Optional[FrameInfo] = None
        self._latencies: Deque[float] = deque(maxlen=_LATENCIES)

    def count(self, tracked: Tracked) -> List[CountEvent]:
        """Count one frame's tracks."""
        now = self._clock()
        with self._lock:
            events = self._counter.update(tracked.info, tracked.tracks)
            self._newest = tracked.info
        self.rate.tick(now)
        return events

    def finish(self) -> List[CountEvent]:
        """No frame of these tracks will come any more: count what is certain because of it."""
        with self._lock:
            return self._counter.finish()

    def restore(self, totals: CameraTotals) -> None:
        """Go on from the totals of an earlier run."""
        with self._lock:
            zones = {n: ZoneState(entered=t.into, left=t.out) for n, t in totals.zones.items()}
            self._counter.restore(totals.lines, zones)

    def reset(self) -> None:
        """Set all totals to zero; people who are in a zone stay in it."""
        with self._lock:
            self._counter.reset()

    def took(self, seconds: float) -> None:
        """The newest frame took so long from capture (or a file's hand-over) to its counts."""
        self._latencies.append(seconds)

    def latency_ms(self) -> Optional[float]:
        """Median of what the last frames took; None before the first."""
        recent = list(self._latencies)
        return 1e3 * median(recent) if recent else None

    def _confidence(self) -> float:
        with self._lock:
            return self._counter.confidence().probability

    def totals(self) -> Tuple[Mapping[str, LineTotals], Mapping[str, ZoneState], int]:
        """Lines, zones and visible heads, all of the same frame."""
        with self._lock:
            return self._counter.lines(), self._counter.zones(), self._counter.visible

    def snapshot(self, *, seq: int, since: float, degraded: Tuple[str, ...]) -> Snapshot:
        """The state of this camera as it is published."""
        lines, zones, visible = self.totals()
        newest = self._newest
        return Snapshot(
            camera=self.camera,
            ts=newest.ts if newest else 0.0,
            seq=seq,
            visible=visible,
            lines=lines,
            zones=zones,
            fps=self.rate.fps(self._clock()),
            degraded=degraded,
            since=since,
            confidence=self._confidence(),
        )
