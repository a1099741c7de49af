"""Who is followed: one row per person, held across short losses of the track.

Detectors flicker and trackers start new tracks for people they have lost. Counting starts
from nothing with a new id, and a crossing made between the two would be missed. So a new
track that begins where a lost one should be by now takes over its row (*stitching*), and
the gap between them is part of its way.

Tentative tracks get no row. Their sightings wait in a list and are replayed when the track
is confirmed, so a false detection never disturbs anybody's state.
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
    """One track in one frame: stream time, wall-clock time, (2,) anchor and size.

    Anchor and size (the geometric mean of width and height) are in diagonal units.
    """

    time: float
    ts: float
    point: FloatArray
    size: float


@dataclass(frozen=True)
class Motion:
    """Where N tracks went between their last sighting and this one.

    Attributes:
        rows: (N,) rows in the roster, each once.
        start: (N, 2) last anchors, diagonal units.
        end: (N, 2) anchors now.
        start_time: (N,) stream time of the last sighting, seconds.
        start_ts: (N,) its wall-clock time.
        time: Stream time now.
        ts: Wall-clock time now.
    """

    rows: IndexArray
    start: FloatArray
    end: FloatArray
    start_time: FloatArray
    start_ts: FloatArray
    time: float
    ts: float

    def time_at(self, n: int, fraction: float) -> float:
        """Stream time at a fraction of the way of track ``n``."""
        return float(self.start_time[n] + fraction * (self.time - self.start_time[n]))

    def ts_at(self, n: int, fraction: float) -> float:
        """Wall-clock time at a fraction of the way of track ``n``."""
        return float(self.start_ts[n] + fraction * (self.ts - self.start_ts[n]))


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


_ROW = np.dtype(
    [
        ("id", np.int64),
        ("used", np.bool_),
        ("ended", np.bool_),
        ("point", np.float64, (2,)),
        ("velocity", np.float64, (2,)),
        ("size", np.float64),
        ("time", np.float64),
        ("ts", np.float64),
        ("born", np.float64),
    ]
)


class Roster:
    """Rows for confirmed tracks, a waiting list for tentative ones."""

    def __init__(self, rules: StitchRules, capacity: int) -> None:
        self._rules = rules
        self._row_of: Dict[int, int] = {}
        self._tentative: Dict[int, List[Sighting]] = {}
        self._table = np.zeros(capacity, _ROW)

    def __len__(self) -> int:
        """Number of people followed: rows in use and tentative tracks."""
        return int(self._table["used"].sum()) + len(self._tentative)

    @property
    def capacity(self) -> int:
        """Number of rows; it grows with demand."""
        return len(self._table)

    def rows(self, ids: "NDArray[np.int64]") -> IndexArray:
        """(N,) rows of track ids, -1 where an id has none."""
        row_of = self._row_of
        return np.array([row_of.get(i, -1) for i in ids.tolist()], np.intp)

    def track(self, row: int) -> int:
        """Id of the track that holds a row, or held it last."""
        return int(self._table["id"][row])

    def last(self, row: int) -> Sighting:
        """The latest sighting of a row."""
        entry = self._table[row]
        return Sighting(
            float(entry["time"]), float(entry["ts"]), entry["point"].copy(), float(entry["size"])
        )

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

    def move(
        self, rows: IndexArray, points: FloatArray, sizes: FloatArray, time: float, ts: float
    ) -> Motion:
        """Record the sightings of rows, each once, and return the ways they went."""
        table = self._table
        old = table[rows]
        motion = Motion(rows, old["point"], points, old["time"], old["ts"], time, ts)
        elapsed = np.maximum(time - old["time"], _LEAST_STEP_S)[:, None]
        # A young track's velocity is its mean velocity so far.
        age = np.maximum(time - old["born"], _LEAST_STEP_S)[:, None]
        weight = np.maximum(-np.expm1(-elapsed / self._rules.velocity_tau_s), elapsed / age)
        velocity = old["velocity"]
        table["velocity"][rows] = velocity + weight * ((points - old["point"]) / elapsed - velocity)
        table["point"][rows] = points
        table["size"][rows] = sizes
        table["time"][rows] = time
        table["ts"][rows] = ts
        return motion

    def end(self, ids: "NDArray[np.int64]") -> None:
        """The tracker has given these up; their rows wait for a successor."""
        for track in ids.tolist():
            self._tentative.pop(track, None)
            row = self._row_of.pop(track, None)
            if row is not None:
                self._table["ended"][row] = True

    def seen_since(self, time: float) -> IndexArray:
        """Rows with a sighting at or after a time."""
        return np.flatnonzero(self._table["used"] & (self._table["time"] >= time))

    def overdue(self, time: float) -> List[int]:
        """Rows that nobody can take over any more."""
        table = self._table
        patience = np.where(table["ended"], self._rules.gap_s, _FORGOTTEN_S)
        rows: List[int] = np.flatnonzero(table["used"] & (time - table["time"] > patience)).tolist()
        return rows

    def used(self) -> List[int]:
        """All rows in use."""
        rows: List[int] = np.flatnonzero(self._table["used"]).tolist()
        return rows

    def close(self, row: int) -> None:
        """Free a row."""
        self._row_of.pop(self.track(row), None)
        self._table["used"][row] = False

    def forget_stale(self, time: float) -> None:
        """Drop tentative tracks that were neither confirmed nor ended for long."""
        stale = [t for t, seen in self._tentative.items() if time - seen[-1].time > _FORGOTTEN_S]
        for track in stale:
            del self._tentative[track]

    def _lost_near(self, sighting: Sighting) -> List[Tuple[int, float]]:
        """Rows that the sighting may continue, each with its distance in sizes."""
        rules, table = self._rules, self._table
        gap = sighting.time - table["time"]
        rows = np.flatnonzero(table["used"] & (gap > 0.0) & (gap <= rules.gap_s))
        if not len(rows):
            return []
        lost, gap = table[rows], gap[rows]
        expected = lost["point"] + lost["velocity"] * gap[:, None]
        way = sighting.point - expected
        size = np.maximum(lost["size"], sighting.size)
        distance = np.hypot(way[:, 0], way[:, 1]) / size
        ratio = size / np.minimum(lost["size"], sighting.size)
        near = (distance <= rules.reach + rules.reach_per_s * gap) & (ratio <= rules.size_ratio)
        return [(int(row), float(d)) for row, d in zip(rows[near], distance[near])]

    def _hand_over(self, row: int, track: int) -> None:
        self._row_of.pop(self.track(row), None)
        self._row_of[track] = row
        self._table["id"][row] = track
        self._table["ended"][row] = False

    def _open(self, track: int, first: Sighting) -> int:
        free = np.flatnonzero(~self._table["used"])
        if not len(free):
            free = np.arange(self.capacity, 2 * self.capacity)
            self._table = grown(self._table, 2 * self.capacity)
        row = int(free[0])
        self._row_of[track] = row
        self._table[row] = (
            track,
            True,
            False,
            first.point,
            (0.0, 0.0),
            first.size,
            first.time,
            first.ts,
            first.time,
        )
        return row


def grown(table: "NDArray[T]", capacity: int) -> "NDArray[T]":
    """A copy with room for ``capacity`` rows, the new ones zero."""
    result = np.zeros((capacity, *table.shape[1:]), table.dtype)
    result[: len(table)] = table
    return result
