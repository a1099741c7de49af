"""Who is followed: one row per person, held across short losses of the track.

*Stitching.* Detectors flicker and trackers start new tracks for people they have lost.
Counting would start from nothing with a new id, and a crossing made between the two would
be missed. So a new track that begins where a lost one should be by now takes over its row,
and the gap between them is part of its way.

*Tentative tracks* get no row. Their sightings wait in a list and are replayed when the
track is confirmed, so a false detection never disturbs anybody's state.
"""

from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Sequence, Tuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecount.count.geometry import FloatArray, IndexArray

# A track that the tracker has neither shown nor ended for so long is dropped here as well.
_FORGOTTEN_S = 30.0
# A tentative track is confirmed within a second; the rest of a longer list is of no use.
_TENTATIVE_SIGHTINGS = 64
_LEAST_STEP_S = 1e-3
T = TypeVar("T", bound=np.generic)


class Sighting(NamedTuple):
    """One track in one frame: stream time in seconds, (2,) anchor and size.

    Anchor and size (the geometric mean of width and height) are in diagonal units.
    """

    time: float
    point: FloatArray
    size: float


@dataclass(frozen=True)
class Motion:
    """One step of N tracks on their ways.

    Attributes:
        rows: (N,) rows in the roster, each once.
        start: (N, 2) where their ways ended so far, diagonal units.
        end: (N, 2) where they end now.
        start_time: (N,) stream time at ``start``, seconds.
        end_time: Stream time at ``end``.
    """

    rows: IndexArray
    start: FloatArray
    end: FloatArray
    start_time: FloatArray
    end_time: float

    def time_at(self, n: int, fraction: float) -> float:
        """Stream time at a fraction of the step of track ``n``."""
        return float(self.start_time[n] + fraction * (self.end_time - self.start_time[n]))


@dataclass(frozen=True)
class StitchRules:
    """When a new track continues a lost one.

    Attributes:
        gap_s: Longest time between the two, seconds; 0 stitches nothing.
        reach: Farthest distance from where the lost one should be, in its own sizes.
        reach_per_s: Added to ``reach`` for each second of the gap.
        size_ratio: Largest ratio of the two sizes.
        velocity_tau_s: Time constant of the smoothed velocity, seconds.
    """

    gap_s: float = 2.0
    reach: float = 1.0
    reach_per_s: float = 0.5
    size_ratio: float = 1.7
    velocity_tau_s: float = 0.5


class Roster:
    """Rows for confirmed tracks, a waiting list for tentative ones.

    Args:
        rules: When tracks are stitched.
        capacity: Rows to begin with; it doubles on demand.
    """

    def __init__(self, rules: StitchRules, capacity: int) -> None:
        self._rules = rules
        self._row_of: Dict[int, int] = {}
        self._tentative: Dict[int, List[Sighting]] = {}
        self.ids = np.zeros(capacity, np.int64)
        self._used = np.zeros(capacity, np.bool_)
        self._ended = np.zeros(capacity, np.bool_)
        self._born = np.zeros(capacity)
        self._size = np.zeros(capacity)
        self._velocity = np.zeros((capacity, 2))
        self._point = np.zeros((capacity, 2))
        self._time = np.zeros(capacity)

    def __len__(self) -> int:
        """Number of people followed: rows in use and tentative tracks."""
        return int(self._used.sum()) + len(self._tentative)

    @property
    def capacity(self) -> int:
        """Number of rows."""
        return len(self._used)

    def rows(self, ids: "NDArray[np.int64]") -> IndexArray:
        """(N,) rows of track ids, -1 where an id has none."""
        row_of = self._row_of
        return np.array([row_of.get(i, -1) for i in ids.tolist()], np.intp)

    def wait(self, track: int, sighting: Sighting) -> None:
        """Remember a sighting of a tentative track."""
        waiting = self._tentative.setdefault(track, [])
        waiting.append(sighting)
        del waiting[:-_TENTATIVE_SIGHTINGS]

    def waited(self, track: int) -> List[Sighting]:
        """Take a track from the waiting list; its sightings, oldest first."""
        return self._tentative.pop(track, [])

    def place(self, arrivals: Sequence[Tuple[int, Sighting]]) -> Dict[int, Tuple[int, bool]]:
        """Find a row for tracks that are new, each given with its first sighting.

        The nearest lost row is taken over first; ties go to the lower id, then the lower row.

        Returns:
            By track id: its row, and whether that row was taken over from a lost track.
        """
        pairs = sorted(
            (distance, track, row)
            for track, sighting in arrivals
            for row, distance in self._lost_near(sighting)
        )
        placed: Dict[int, Tuple[int, bool]] = {}
        taken = set()
        for _, track, row in pairs:
            if track not in placed and row not in taken:
                placed[track] = (row, True)
                taken.add(row)
        for track, (row, _) in placed.items():
            self._hand_over(row, track)
        for track, sighting in arrivals:
            if track not in placed:
                placed[track] = (self._open(track, sighting), False)
        return placed

    def move(self, rows: IndexArray, points: FloatArray, sizes: FloatArray, time: float) -> Motion:
        """Record the sightings of rows, each once, and return the steps of their ways."""
        motion = Motion(rows, self._point[rows], points, self._time[rows], time)
        self._note_velocity(motion)
        self._point[rows] = points
        self._time[rows] = time
        self._size[rows] = sizes
        return motion

    def end(self, ids: "NDArray[np.int64]") -> None:
        """The tracker has given these up; their rows wait for a successor."""
        for track in ids.tolist():
            self._tentative.pop(track, None)
            row = self._row_of.pop(track, None)
            if row is not None:
                self._ended[row] = True

    def seen_since(self, time: float) -> IndexArray:
        """Rows with a sighting at or after a time."""
        return np.flatnonzero(self._used & (self._time >= time))

    def overdue(self, time: float) -> List[int]:
        """Rows that nobody can take over any more."""
        patience = np.where(self._ended, self._rules.gap_s, _FORGOTTEN_S)
        rows: List[int] = np.flatnonzero(self._used & (time - self._time > patience)).tolist()
        return rows

    def points(self, rows: IndexArray) -> FloatArray:
        """(N, 2) newest anchors of rows, diagonal units."""
        return self._point[rows]

    def last(self, row: int) -> Sighting:
        """A row's newest sighting."""
        return Sighting(float(self._time[row]), self._point[row].copy(), float(self._size[row]))

    def used(self) -> List[int]:
        """All rows in use."""
        rows: List[int] = np.flatnonzero(self._used).tolist()
        return rows

    def close(self, row: int) -> None:
        """Free a row; ``ids`` still tells who held it, until it is used again."""
        self._row_of.pop(int(self.ids[row]), None)
        self._used[row] = False

    def forget_stale(self, time: float) -> None:
        """Drop tentative tracks that were neither confirmed nor ended for long."""
        stale = [t for t, seen in self._tentative.items() if time - seen[-1].time > _FORGOTTEN_S]
        for track in stale:
            del self._tentative[track]

    def _note_velocity(self, motion: Motion) -> None:
        rows, time = motion.rows, motion.end_time
        elapsed = np.maximum(time - motion.start_time, _LEAST_STEP_S)
        # A young track's velocity is its mean velocity so far.
        age = np.maximum(time - self._born[rows], _LEAST_STEP_S)
        weight = np.maximum(-np.expm1(elapsed / -self._rules.velocity_tau_s), elapsed / age)
        velocity = self._velocity[rows]
        step = (motion.end - motion.start) / elapsed[:, None]
        self._velocity[rows] = velocity + weight[:, None] * (step - velocity)

    def _lost_near(self, sighting: Sighting) -> List[Tuple[int, float]]:
        """Rows that the sighting may continue, each with its distance in sizes."""
        rules = self._rules
        gaps = sighting.time - self._time
        rows = np.flatnonzero(self._used & (gaps > 0.0) & (gaps <= rules.gap_s))
        gap, size = gaps[rows], np.maximum(self._size[rows], sighting.size)
        expected = self._point[rows] + self._velocity[rows] * gap[:, None]
        way = sighting.point - expected
        distance = np.hypot(way[:, 0], way[:, 1]) / size
        ratio = size / np.minimum(self._size[rows], sighting.size)
        near = (distance <= rules.reach + rules.reach_per_s * gap) & (ratio <= rules.size_ratio)
        return [(int(row), float(d)) for row, d in zip(rows[near], distance[near])]

    def _hand_over(self, row: int, track: int) -> None:
        self._row_of.pop(int(self.ids[row]), None)
        self._row_of[track] = row
        self.ids[row] = track
        self._ended[row] = False

    def _open(self, track: int, first: Sighting) -> int:
        free = np.flatnonzero(~self._used)
        row = int(free[0]) if len(free) else self._double()
        self._row_of[track] = row
        self.ids[row] = track
        self._used[row] = True
        self._ended[row] = False
        self._born[row] = first.time
        self._size[row] = first.size
        self._velocity[row] = 0.0
        self._point[row] = first.point
        self._time[row] = first.time
        return row

    def _double(self) -> int:
        """Make room; returns the first new row."""
        row = self.capacity
        self.ids = doubled(self.ids)
        self._used, self._ended = doubled(self._used), doubled(self._ended)
        self._size, self._born = doubled(self._size), doubled(self._born)
        self._velocity = doubled(self._velocity)
        self._point, self._time = doubled(self._point), doubled(self._time)
        return row


def doubled(table: "NDArray[T]") -> "NDArray[T]":
    """A copy with twice the rows, the new ones zero."""
    return np.concatenate((table, np.zeros_like(table)))
