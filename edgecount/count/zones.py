"""Who is in a polygon, who came and who left.

Being inside changes for certain when it has lasted for ``settle_s``; shorter visits and
shorter absences do not count. The way between two sightings is tested as a segment, so that
somebody who runs through a zone between two frames is seen, and entry and exit get the time
at which the border was crossed.
"""

from typing import List, NamedTuple, Sequence

import numpy as np

from edgecount.config import ZoneSettings
from edgecount.count.geometry import Canvas, FloatArray, IndexArray, MaskArray, chords, inside
from edgecount.count.roster import Motion, Sighting, grown

_TIME_SLACK_S = 1e-6

# Per track and zone. ``inside``: at the last sighting. ``settled``: for certain. ``turn_…``:
# when ``inside`` came to differ from ``settled``. ``entered_…``: when it settled inside.
_ROW = np.dtype(
    [
        ("inside", np.bool_),
        ("settled", np.bool_),
        ("turn_time", np.float64),
        ("turn_ts", np.float64),
        ("entered_time", np.float64),
    ]
)


class Passage(NamedTuple):
    """An entry or exit that has become certain.

    Attributes:
        row: Row of the track in the roster.
        zone: Index of the zone.
        entered: True for an entry, False for an exit.
        ts: When the border was crossed, UTC seconds since 1970.
        dwell_s: For an exit: seconds since the entry.
    """

    row: int
    zone: int
    entered: bool
    ts: float
    dwell_s: float


class ZoneCounter:
    """The state of every track in every zone of one camera, in arrays of (rows, zones)."""

    def __init__(self, zones: Sequence[ZoneSettings], capacity: int) -> None:
        self._zones = list(zones)
        self._settle_s = np.array([zone.settle_s for zone in zones], np.float64) - _TIME_SLACK_S
        self._polygons: List[FloatArray] = []
        self._table = np.zeros((capacity, len(self._zones)), _ROW)
        self.fit(Canvas(1, 1))

    def fit(self, canvas: Canvas) -> None:
        """Lay the zones over a picture of another shape; tracks must be started again."""
        self._polygons = [canvas.points(zone.polygon) for zone in self._zones]
        self._low = np.array([p.min(axis=0) for p in self._polygons]).reshape(-1, 2)
        self._high = np.array([p.max(axis=0) for p in self._polygons]).reshape(-1, 2)

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self._table = grown(self._table, capacity)

    def start(self, row: int, first: Sighting) -> None:
        """Begin a track."""
        entry = self._table[row]
        entry["inside"] = self._inside(first.point[None])[0]
        entry["settled"] = False
        entry["turn_time"] = first.time
        entry["turn_ts"] = first.ts

    def step(self, motion: Motion) -> List[Passage]:
        """Move tracks on; rows must not repeat. Returns what became certain."""
        now = self._inside(motion.end)
        passages: List[Passage] = []
        for n, zone in zip(*np.nonzero(self._to_trace(motion, now))):
            passages += self._trace(motion, int(n), int(zone), bool(now[n, zone]))
        return passages + self._settle(motion)

    def end(self, row: int, last: Sighting) -> List[Passage]:
        """Close a track that is gone for good: it left where it was last seen."""
        passages = []
        for zone in np.flatnonzero(self._table["settled"][row]).tolist():
            entry = self._table[row, zone]
            time, ts = (
                (last.time, last.ts)
                if entry["inside"]
                else (float(entry["turn_time"]), float(entry["turn_ts"]))
            )
            passages.append(self._leave(row, zone, time, ts))
        return passages

    def held(self, rows: IndexArray) -> IndexArray:
        """(Z,) how many of the rows were inside at their last sighting."""
        return np.count_nonzero(self._table["inside"][rows], axis=0)

    def longest(self, rows: IndexArray, time: float) -> FloatArray:
        """(Z,) longest stay so far of those rows that are inside for certain, seconds."""
        stays = np.where(
            self._table["settled"][rows], time - self._table["entered_time"][rows], 0.0
        )
        result: FloatArray = np.max(stays, axis=0, initial=0.0)
        return result

    def _inside(self, points: FloatArray) -> MaskArray:
        result = np.empty((len(points), len(self._polygons)), np.bool_)
        for zone, polygon in enumerate(self._polygons):
            result[:, zone] = inside(points, polygon)
        return result

    def _to_trace(self, motion: Motion, now: MaskArray) -> MaskArray:
        """(N, Z): who changed sides, or went from outside to outside past the zone's box."""
        before = self._table["inside"][motion.rows]
        low, high = np.minimum(motion.start, motion.end), np.maximum(motion.start, motion.end)
        passes = np.ones(now.shape, np.bool_)
        for axis in (0, 1):
            passes &= low[:, axis, None] <= self._high[:, axis]
            passes &= high[:, axis, None] >= self._low[:, axis]
        return (before != now) | (passes & ~before & ~now)

    def _trace(self, motion: Motion, n: int, zone: int, now: bool) -> List[Passage]:
        """Walk along one way and turn at each border it meets."""
        passages: List[Passage] = []
        for enter, leave in chords(motion.start[n], motion.end[n], self._polygons[zone]):
            if enter > 0.0:
                passages += self._turn(motion, n, zone, True, enter)
            if leave < 1.0:
                passages += self._turn(motion, n, zone, False, leave)
        # A sighting exactly on the border may disagree with the chords by a rounding.
        return passages + self._turn(motion, n, zone, now, 1.0)

    def _turn(self, motion: Motion, n: int, zone: int, now: bool, fraction: float) -> List[Passage]:
        row = int(motion.rows[n])
        entry = self._table[row, zone]
        if entry["inside"] == now:
            return []
        time = motion.time_at(n, fraction)
        passages = self._settle_one(row, zone, time)
        entry["inside"] = now
        if entry["settled"] != now:
            entry["turn_time"] = time
            entry["turn_ts"] = motion.ts_at(n, fraction)
        return passages

    def _settle(self, motion: Motion) -> List[Passage]:
        entries = self._table[motion.rows]
        passages: List[Passage] = []
        for n, zone in zip(*np.nonzero(entries["inside"] != entries["settled"])):
            passages += self._settle_one(int(motion.rows[n]), int(zone), motion.time)
        return passages

    def _settle_one(self, row: int, zone: int, time: float) -> List[Passage]:
        """Make a change of sides certain if by ``time`` it has lasted long enough."""
        entry = self._table[row, zone]
        if entry["inside"] == entry["settled"]:
            return []
        if time - entry["turn_time"] < self._settle_s[zone]:
            return []
        turn_time, turn_ts = float(entry["turn_time"]), float(entry["turn_ts"])
        if entry["settled"]:
            return [self._leave(row, zone, turn_time, turn_ts)]
        entry["settled"] = True
        entry["entered_time"] = turn_time
        return [Passage(row, zone, True, turn_ts, 0.0)]

    def _leave(self, row: int, zone: int, time: float, ts: float) -> Passage:
        entry = self._table[row, zone]
        entry["settled"] = False
        return Passage(row, zone, False, ts, time - float(entry["entered_time"]))
