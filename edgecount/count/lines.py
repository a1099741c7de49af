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
from edgecount.count.roster import Motion, doubled

# "Beside a line" is within this distance of it, in diagonals of the picture, and not further
# beyond its ends than this share of its length.
_BESIDE = 0.05
_BEYOND = 0.05
# Stream times are sums of frame intervals: 7/7 s may come out a rounding below 1 s.
_TIME_SLACK_S = 1e-6


class Crossing(NamedTuple):
    """A crossing that has become certain.

    Attributes:
        row: Row of the track in the roster.
        line: Index of the line.
        sign: +1 for "in", -1 for "out".
        time: When the line was crossed, stream time in seconds.
    """

    row: int
    line: int
    sign: int
    time: float


class LineCounter:
    """The state of every track at every line of one camera, in arrays of (rows, lines)."""

    def __init__(self, lines: Sequence[LineSettings], capacity: int) -> None:
        self._lines = list(lines)
        self._band = np.array([line.band for line in lines], np.float64)
        self._return_s = np.array([line.return_s for line in lines], np.float64) - _TIME_SLACK_S
        self._geometry = LineGeometry.of(self._lines, Canvas(1, 1))
        shape = (capacity, len(self._lines))
        self._side = np.zeros(shape, np.int8)  # -1 left, +1 right, 0 not known yet
        self._pending = np.zeros(shape, np.int8)  # sign of a crossing not certain yet, or 0
        self._distance = np.zeros(shape)
        self._crossed = np.zeros(shape)  # stream time of the pending crossing
        # Farthest distance on each side since it was last left for certain.
        self._reach_left = np.zeros(shape)
        self._reach_right = np.zeros(shape)

    def fit(self, canvas: Canvas) -> None:
        """Lay the lines over a picture of another shape; tracks must be started again."""
        self._geometry = LineGeometry.of(self._lines, canvas)

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        while len(self._side) < capacity:
            self._side, self._pending = doubled(self._side), doubled(self._pending)
            self._distance, self._crossed = doubled(self._distance), doubled(self._crossed)
            self._reach_left = doubled(self._reach_left)
            self._reach_right = doubled(self._reach_right)

    def start(self, row: int, point: FloatArray) -> None:
        """Begin a track, at (2,) diagonal units."""
        distance = self._geometry.distances(point[None])[0]
        self._distance[row] = distance
        self._side[row] = np.sign(distance)
        self._pending[row] = 0
        self._reach_right[row] = np.maximum(distance, 0.0)
        self._reach_left[row] = np.maximum(-distance, 0.0)

    def step(self, motion: Motion) -> List[Crossing]:
        """Move tracks on; rows must not repeat. Returns what became certain."""
        rows = motion.rows
        distance = self._geometry.distances(motion.end)
        sign = np.sign(distance).astype(np.int8)
        old = self._side[rows]
        turned = sign * old < 0
        certain = self._turn(motion, distance, turned) if turned.any() else []
        # Exactly on the line nobody has changed sides; this also makes in and out mirror images.
        self._side[rows] = np.where(sign == 0, old, sign)
        self._distance[rows] = distance
        self._reach_right[rows] = np.maximum(self._reach_right[rows], distance)
        self._reach_left[rows] = np.maximum(self._reach_left[rows], -distance)
        return certain + self._settle(motion, distance)

    def end(self, row: int) -> List[Crossing]:
        """Close a track that is gone for good. Returns what is certain because of it."""
        across = self._reach_left[row] + self._reach_right[row] >= 2.0 * self._band
        certain = np.flatnonzero((self._pending[row] != 0) & across)
        return [self._commit(row, line) for line in certain.tolist()]

    def beside(self, point: FloatArray) -> int:
        """Beside how many lines a (2,) point lies."""
        near = np.flatnonzero(np.abs(self._geometry.distances(point[None])[0]) <= _BESIDE)
        positions = (self._geometry.position(point, line) for line in near.tolist())
        return sum(-_BEYOND <= position <= 1.0 + _BEYOND for position in positions)

    def _turn(self, motion: Motion, distance: FloatArray, turned: MaskArray) -> List[Crossing]:
        """Follow those who changed sides with this step, exactly at the time they did."""
        certain: List[Crossing] = []
        for n, line in np.argwhere(turned).tolist():
            row = int(motion.rows[n])
            before, after = self._distance[row, line], distance[n, line]
            fraction = before / (before - after)
            time = motion.time_at(n, fraction)
            if self._pending[row, line]:
                if not self._was_kept(row, line, time):
                    self._pending[row, line] = 0
                    continue
                certain.append(self._commit(row, line))
            point = motion.start[n] + fraction * (motion.end[n] - motion.start[n])
            if 0.0 <= self._geometry.position(point, line) <= 1.0:
                self._pending[row, line] = np.sign(after)
                self._crossed[row, line] = time
        return certain

    def _was_kept(self, row: int, line: int, until: float) -> bool:
        """Whether the far side was kept long enough, and far enough at the last sighting."""
        kept = until - self._crossed[row, line] >= self._return_s[line]
        return bool(kept and abs(self._distance[row, line]) >= self._band[line])

    def _settle(self, motion: Motion, distance: FloatArray) -> List[Crossing]:
        pending = self._pending[motion.rows]
        if not pending.any():
            return []
        kept = motion.end_time - self._crossed[motion.rows] >= self._return_s
        due = (pending != 0) & (distance * pending >= self._band) & kept
        return [self._commit(int(motion.rows[n]), line) for n, line in np.argwhere(due).tolist()]

    def _commit(self, row: int, line: int) -> Crossing:
        sign = int(self._pending[row, line])
        self._pending[row, line] = 0
        (self._reach_left if sign > 0 else self._reach_right)[row, line] = 0.0
        return Crossing(row, line, sign, float(self._crossed[row, line]))
