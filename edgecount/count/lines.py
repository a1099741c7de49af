"""Crossings of directed lines.

The way of a track's anchor from one sighting to the next is tested as a segment, so that
nobody is too fast to be seen. A crossing is first *pending*. It becomes certain when the
anchor is seen farther than ``band`` from the line and ``return_s`` have gone by since the
crossing; coming back over the line before that cancels it (A→B→A). Somebody who is
lost while pending has crossed if the whole way across, from the farthest point before the
line to the farthest behind it, was longer than the band is wide.
"""

from typing import List, NamedTuple, Sequence

import numpy as np

from edgecount.config import LineSettings
from edgecount.count.geometry import Canvas, FloatArray, LineGeometry, MaskArray
from edgecount.count.roster import Motion, grown

# Stream times are sums of frame intervals: 7/7 s may come out a rounding below 1 s.
_TIME_SLACK_S = 1e-6


# Per track and line. ``side``: -1 left, +1 right, 0 not known yet. ``pending``: sign of a
# crossing that is not certain yet, else 0. ``reach_…``: farthest distance on that side since
# it was last left for certain.
_ROW = np.dtype(
    [
        ("side", np.int8),
        ("pending", np.int8),
        ("distance", np.float64),
        ("crossed_time", np.float64),
        ("crossed_ts", np.float64),
        ("reach_left", np.float64),
        ("reach_right", np.float64),
    ]
)


class Crossing(NamedTuple):
    """A crossing that has become certain.

    Attributes:
        row: Row of the track in the roster.
        line: Index of the line.
        sign: +1 for "in", -1 for "out".
        ts: When the line was crossed, UTC seconds since 1970.
    """

    row: int
    line: int
    sign: int
    ts: float


class LineCounter:
    """The state of every track at every line of one camera, in arrays of (rows, lines)."""

    def __init__(self, lines: Sequence[LineSettings], capacity: int) -> None:
        self._lines = list(lines)
        self._band = np.array([line.band for line in lines], np.float64)
        self._return_s = np.array([line.return_s for line in lines], np.float64) - _TIME_SLACK_S
        self._geometry = LineGeometry.of(self._lines, Canvas(1, 1))
        self._table = np.zeros((capacity, len(self._lines)), _ROW)

    def fit(self, canvas: Canvas) -> None:
        """Lay the lines over a picture of another shape; tracks must be started again."""
        self._geometry = LineGeometry.of(self._lines, canvas)

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self._table = grown(self._table, capacity)

    def start(self, row: int, point: FloatArray) -> None:
        """Begin a track, at (2,) diagonal units."""
        distance = self._geometry.distances(point[None])[0]
        self._table["distance"][row] = distance
        self._table["side"][row] = np.sign(distance)
        self._table["pending"][row] = 0
        self._table["reach_right"][row] = np.maximum(distance, 0.0)
        self._table["reach_left"][row] = np.maximum(-distance, 0.0)

    def step(self, motion: Motion) -> List[Crossing]:
        """Move tracks on; rows must not repeat. Returns what became certain."""
        rows = motion.rows
        distance = self._geometry.distances(motion.end)
        sign = np.sign(distance).astype(np.int8)
        old = self._table["side"][rows]
        turned = sign * old < 0
        if turned.any():
            self._turn(motion, distance, turned)
        # Exactly on the line nobody has changed sides; this also makes in and out mirror images.
        self._table["side"][rows] = np.where(sign == 0, old, sign)
        self._table["distance"][rows] = distance
        self._table["reach_right"][rows] = np.maximum(self._table["reach_right"][rows], distance)
        self._table["reach_left"][rows] = np.maximum(self._table["reach_left"][rows], -distance)
        return self._settle(motion, distance)

    def end(self, row: int) -> List[Crossing]:
        """Close a track that is gone for good. Returns what is certain because of it."""
        entry = self._table[row]
        across = entry["reach_left"] + entry["reach_right"] >= 2.0 * self._band
        certain = np.flatnonzero((entry["pending"] != 0) & across)
        return [self._commit(row, int(line)) for line in certain]

    def _turn(self, motion: Motion, distance: FloatArray, turned: MaskArray) -> None:
        for n, line in zip(*np.nonzero(turned)):
            row = motion.rows[n]
            if self._table["pending"][row, line]:
                self._table["pending"][row, line] = 0
                continue
            before = self._table["distance"][row, line]
            fraction = before / (before - distance[n, line])
            point = motion.start[n] + fraction * (motion.end[n] - motion.start[n])
            if 0.0 <= self._geometry.position(point, line) <= 1.0:
                self._table["pending"][row, line] = np.sign(distance[n, line])
                self._table["crossed_time"][row, line] = motion.time_at(n, fraction)
                self._table["crossed_ts"][row, line] = motion.ts_at(n, fraction)

    def _settle(self, motion: Motion, distance: FloatArray) -> List[Crossing]:
        pending = self._table["pending"][motion.rows]
        if not pending.any():
            return []
        kept = motion.time - self._table["crossed_time"][motion.rows] >= self._return_s
        due = (pending != 0) & (distance * pending >= self._band) & kept
        return [self._commit(int(motion.rows[n]), int(line)) for n, line in zip(*np.nonzero(due))]

    def _commit(self, row: int, line: int) -> Crossing:
        sign = int(self._table["pending"][row, line])
        self._table["pending"][row, line] = 0
        self._table["reach_left" if sign > 0 else "reach_right"][row, line] = 0.0
        return Crossing(row, line, sign, float(self._table["crossed_ts"][row, line]))
