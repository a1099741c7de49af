"""Feeds people who walk along given paths to a counter."""

from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import pytest

from edgecount.config import LineSettings, ZoneSettings
from edgecount.count.counter import CameraCounter, Rules
from edgecount.records import CountEvent, FrameInfo, Tracks

Path = Dict[int, Tuple[float, float]]  # frame -> anchor in pixels
SIZE = 20.0


def tracks_at(
    points: Dict[int, Tuple[float, float]],
    confirmed: Callable[[int], bool] = lambda _: True,
    ended: Sequence[int] = (),
    size: float = SIZE,
) -> Tracks:
    """Tracks whose box centres are given in pixels, by id."""
    ids = np.array(sorted(points), np.int64)
    centre = np.array([points[i] for i in ids.tolist()], np.float64).reshape(-1, 2)
    boxes = np.hstack((centre - size / 2, centre + size / 2)).astype(np.float32)
    n = len(ids)
    return Tracks(
        ids,
        boxes,
        np.ones(n, np.float32),
        np.zeros(n, np.int32),
        np.array([confirmed(i) for i in ids.tolist()], np.bool_),
        np.array(sorted(ended), np.int64),
    )


class Scene:
    """A counter, and people who walk past it."""

    def __init__(
        self,
        lines: Sequence[LineSettings] = (),
        zones: Sequence[ZoneSettings] = (),
        *,
        fps: float = 25.0,
        size: Tuple[int, int] = (1000, 1000),
        rules: Optional[Rules] = None,
    ) -> None:
        self.fps = fps
        self.size = size
        self.counter = CameraCounter("cam", lines, zones, "center", rules)
        self.events: List[CountEvent] = []
        self._index = 0

    def step(self, tracks: Tracks) -> List[CountEvent]:
        """One frame."""
        time = self._index / self.fps
        info = FrameInfo("cam", self._index, 1000.0 + time, time, *self.size)
        self._index += 1
        events = self.counter.update(info, tracks)
        self.events += events
        return events

    def walk(
        self,
        paths: Dict[int, Sequence[Optional[Tuple[float, float]]]],
        confirmed: Callable[[int, int], bool] = lambda _track, _frame: True,
    ) -> None:
        """Everybody goes along their path, one point a frame (None: not seen), and is ended."""
        for frame in range(max((len(p) for p in paths.values()), default=0)):
            here = {t: p[frame] for t, p in paths.items() if frame < len(p) and p[frame]}
            ended = [t for t, p in paths.items() if frame == len(p) - 1]
            tracks = tracks_at(here, lambda t, f=frame: confirmed(t, f), ended)
            self.step(tracks)

    def finish(self) -> List[Tuple[str, str]]:
        """Close everything; all events as (name, direction)."""
        self.events += self.counter.finish()
        return self.named()

    def named(self) -> List[Tuple[str, str]]:
        """All events so far as (name, direction)."""
        return [(e.name, e.direction) for e in self.events]


def straight(
    start: Tuple[float, float], end: Tuple[float, float], frames: int
) -> List[Tuple[float, float]]:
    """Points evenly spaced on a segment, both ends included."""
    return [
        (
            start[0] + (end[0] - start[0]) * k / (frames - 1),
            start[1] + (end[1] - start[1]) * k / (frames - 1),
        )
        for k in range(frames)
    ]


def line(
    start: Tuple[float, float] = (0.0, 0.5), end: Tuple[float, float] = (1.0, 0.5), **kwargs: object
) -> LineSettings:
    """By default the middle, left to right: walking down is "in"."""
    return LineSettings.model_validate({"name": "door", "from": start, "to": end, **kwargs})


def square(low: float = 0.4, high: float = 0.6, **kwargs: object) -> ZoneSettings:
    """A square zone."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    return ZoneSettings.model_validate({"name": "hall", "polygon": corners, **kwargs})


class Kit:
    """What tests build scenes from."""

    Scene = Scene
    tracks_at = staticmethod(tracks_at)
    straight = staticmethod(straight)
    line = staticmethod(line)
    square = staticmethod(square)


@pytest.fixture(scope="session")
def kit() -> Kit:
    """Builders for scenes."""
    return Kit()
