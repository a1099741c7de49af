"""Who is in a polygon, who came and who left.

Being inside changes for certain when it has lasted for ``settle_s``; shorter visits and
shorter absences do not count. The way between two sightings is tested as a segment, so that
somebody who runs through a zone between two frames is seen, and entry and exit get the time
at which the border was crossed.
"""

from typing import List, NamedTuple, Sequence

import numpy as np

from edgecount.config import ZoneSettings
from edgecount.count.geometry import Canvas, FloatArray, IndexArray, MaskArray, Polygons
from edgecount.count.roster import Motion, Sighting, doubled

_TIME_SLACK_S = 1e-6


class Passage(NamedTuple):
    """An entry or exit that has become certain.

    Attributes:
        row: Row of the track in the roster.
        zone: Index of the zone.
        entered: True for an entry, False for an exit.
        time: When the border was crossed, stream time in seconds.
        dwell_s: For an exit: seconds since the entry.
    """

    row: int
    zone: int
    entered: bool
    time: float
    dwell_s: float


class ZoneCounter:
    """The state of every track in every zone of one camera, in arrays of (rows, zones)."""

    def __init__(self, zones: Sequence[ZoneSettings], capacity: int) -> None:
        self._zones = list(zones)
        self._settle_s = np.array([zone.settle_s for zone in zones], np.float64) - _TIME_SLACK_S
        self._polygons = Polygons([])
        shape = (capacity, len(self._zones))
        self._inside = np.zeros(shape, np.bool_)  # at the last step
        self._settled = np.zeros(shape, np.bool_)  # for certain
        self._turned = np.zeros(shape)  # stream time since when the two differ
        self._entered = np.zeros(shape)  # stream time of the certain entry
        self.fit(Canvas(1, 1))

    def fit(self, canvas: Canvas) -> None:
        """Lay the zones over a picture of another shape; tracks must be started again."""
        self._polygons = Polygons([canvas.points(zone.polygon) for zone in self._zones])

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        while len(self._inside) < capacity:
            self._inside, self._settled = doubled(self._inside), doubled(self._settled)
            self._turned, self._entered = doubled(self._turned), doubled(self._entered)

    def start(self, row: int, first: Sighting) -> None:
        """Begin a track."""
        self._inside[row] = self._polygons.hold(first.point[None])[0]
        self._settled[row] = False
        self._turned[row] = first.time

    def step(self, motion: Motion) -> List[Passage]:
        """Move tracks on; rows must not repeat. Returns what became certain."""
        now = self._polygons.hold(motion.end)
        passages: List[Passage] = []
        for n, zone in np.argwhere(self._to_trace(motion, now)).tolist():
            passages += self._trace(motion, n, zone, bool(now[n, zone]))
        for n, zone in np.argwhere(now != self._settled[motion.rows]).tolist():
            passages += self._settle(int(motion.rows[n]), zone, motion.end_time)
        return passages

    def end(self, row: int, time: float) -> List[Passage]:
        """Close a track that is gone for good: it left where it was last seen, at ``time``."""
        return [
            self._leave(row, zone, time if self._inside[row, zone] else self._turned[row, zone])
            for zone in np.flatnonzero(self._settled[row]).tolist()
        ]

    def count(self, points: FloatArray) -> IndexArray:
        """(Z,) how many of (N, 2) points are in each zone."""
        result: IndexArray = np.count_nonzero(self._polygons.hold(points), axis=0)
        return result

    def longest(self, rows: IndexArray, time: float) -> FloatArray:
        """(Z,) longest stay so far of those rows that are inside for certain, seconds."""
        stays = np.where(self._settled[rows], time - self._entered[rows], 0.0)
        result: FloatArray = np.max(stays, axis=0, initial=0.0)
        return result

    def _to_trace(self, motion: Motion, now: MaskArray) -> MaskArray:
        """(N, Z): who changed sides, or went from outside to outside past the zone's box."""
        before = self._inside[motion.rows]
        low = np.minimum(motion.start, motion.end)
        high = np.maximum(motion.start, motion.end)
        past = ~before
        for axis in (0, 1):
            past &= low[:, axis, None] <= self._polygons.box_high[:, axis]
            past &= high[:, axis, None] >= self._polygons.box_low[:, axis]
        result: MaskArray = past | (before != now)
        return result

    def _trace(self, motion: Motion, n: int, zone: int, now: bool) -> List[Passage]:
        """Walk along one step and turn at each border it meets."""
        passages: List[Passage] = []
        for enter, leave in self._polygons.chords(motion.start[n], motion.end[n], zone):
            if enter > 0.0:
                passages += self._turn(motion, n, zone, True, enter)
            if leave < 1.0:
                passages += self._turn(motion, n, zone, False, leave)
        # A point exactly on the border may disagree with the chords by a rounding.
        return passages + self._turn(motion, n, zone, now, 1.0)

    def _turn(self, motion: Motion, n: int, zone: int, now: bool, fraction: float) -> List[Passage]:
        row = int(motion.rows[n])
        if self._inside[row, zone] == now:
            return []
        time = motion.time_at(n, fraction)
        passages = self._settle(row, zone, time)
        self._inside[row, zone] = now
        if self._settled[row, zone] != now:
            self._turned[row, zone] = time
        return passages

    def _settle(self, row: int, zone: int, time: float) -> List[Passage]:
        """Make a change of sides certain if by ``time`` it has lasted long enough."""
        if self._inside[row, zone] == self._settled[row, zone]:
            return []
        turned = float(self._turned[row, zone])
        if time - turned < self._settle_s[zone]:
            return []
        if self._settled[row, zone]:
            return [self._leave(row, zone, turned)]
        self._settled[row, zone] = True
        self._entered[row, zone] = turned
        return [Passage(row, zone, True, turned, 0.0)]

    def _leave(self, row: int, zone: int, time: float) -> Passage:
        self._settled[row, zone] = False
        return Passage(row, zone, False, float(time), float(time - self._entered[row, zone]))
