"""Tracks of one camera in, count events and totals out.

How the runtime uses it::

    counter = CameraCounter("door", settings.lines, settings.zones, anchor="center")
    for each frame:
        events = counter.update(info, tracks)   # commit them, then publish
        counter.lines(), counter.zones(), counter.visible
    counter.finish()                            # end of a file: nobody comes back
    counter.forget()                            # the camera was reset: its track ids start again
    counter.restore(lines, zones)               # totals from the ledger, after a start
    counter.reset()                             # totals to zero; people in view stay known

It is deterministic, does no I/O and knows nothing of threads: one instance serves one camera.
"""

from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np

from edgecount.config import LineSettings, ZoneSettings
from edgecount.count.confidence import Confidence, ErrorForecast, Trace
from edgecount.count.geometry import Anchor, Canvas, FloatArray, IndexArray, anchors
from edgecount.count.lines import Crossing, LineCounter
from edgecount.count.roster import Motion, Roster, Sighting, StitchRules
from edgecount.count.zones import Passage, ZoneCounter
from edgecount.records import CountEvent, Float32Array, FrameInfo, LineTotals, Tracks, ZoneState

_FIRST_CAPACITY = 32


@dataclass(frozen=True)
class Rules:
    """How gaps in the tracks are treated, the same at all lines and zones.

    Attributes:
        stitch: When a new track continues a lost one.
        hold_s: A zone still counts a head that was lost inside it for so long, seconds.
    """

    stitch: StitchRules = field(default_factory=StitchRules)
    hold_s: float = 0.8

    @staticmethod
    def for_perfect_tracks() -> "Rules":
        """Rules for ground truth: every track is a person, every gap is real."""
        return Rules(StitchRules(gap_s=0.0), hold_s=0.0)


class CameraCounter:
    """Counts crossings of lines and people in zones for one camera.

    Args:
        camera: Name of the camera, for the events.
        lines: Lines to count at, names differ.
        zones: Zones to count in, names differ.
        anchor: Which point of a box is the person: ``center`` for heads, ``bottom`` for
            bodies, ``head`` for the heads of bodies.
        rules: How gaps in the tracks are treated.
    """

    def __init__(
        self,
        camera: str,
        lines: Sequence[LineSettings],
        zones: Sequence[ZoneSettings],
        anchor: Anchor,
        rules: Optional[Rules] = None,
    ) -> None:
        self._camera = camera
        self._anchor = anchor
        self._rules = rules or Rules()
        self._line_names = [line.name for line in lines]
        self._zone_names = [zone.name for zone in zones]
        self._lines = LineCounter(lines, _FIRST_CAPACITY)
        self._zones = ZoneCounter(zones, _FIRST_CAPACITY)
        self._roster = self._new_roster(_FIRST_CAPACITY)
        self._forecast = ErrorForecast()
        self._canvas = Canvas(1, 1)
        self._info: Optional[FrameInfo] = None
        self._visible = 0
        self.reset()

    def confidence(self) -> Confidence:
        """How far the crossings of the last minute can be trusted."""
        return self._forecast.at(self._now())

    @property
    def visible(self) -> int:
        """Confirmed heads in the newest frame."""
        return self._visible

    def __len__(self) -> int:
        """Number of people whose state is held; bounded by those in view lately."""
        return len(self._roster)

    def update(self, info: FrameInfo, tracks: Tracks) -> List[CountEvent]:
        """Take the tracks of the next frame.

        Args:
            info: Of the frame; ``time`` must not run backwards (call :meth:`forget` if it does).
            tracks: In pixels of the frame.

        Returns:
            What became certain with this frame, oldest first. ``ts`` is when it happened,
            which may be seconds ago; ``frame`` is this frame.
        """
        events = self._fit(info)
        self._info = info
        points = anchors(tracks.boxes, self._anchor) / self._canvas.diagonal
        sizes = _sizes(tracks.boxes) / self._canvas.diagonal
        rows = self._roster.rows(tracks.ids)
        # A track of score 0 is given out where it is expected: that is no sighting.
        seen = tracks.scores > 0.0
        known = rows >= 0
        old, new = known & seen, ~known & seen
        if old.all():
            found = self._advance(self._roster.move(rows, points, sizes, info.time))
        else:
            motion = self._roster.move(rows[old], points[old], sizes[old], info.time)
            found = self._advance(motion)
        if new.any():
            found.add(self._admit(tracks, np.flatnonzero(new), points, sizes))
        if len(tracks.ended):
            self._roster.end(tracks.ended)
            self._roster.forget_stale(info.time)
        found.add(self._close(self._roster.overdue(info.time)))
        self._visible = int(np.count_nonzero(tracks.confirmed))
        return events + self._events(found)

    def finish(self) -> List[CountEvent]:
        """The stream has ended: close every track. Returns what is certain because of it."""
        events = self._events(self._close(self._roster.used()))
        self._roster = self._new_roster(self._roster.capacity)
        self._visible = 0
        return events

    def forget(self) -> List[CountEvent]:
        """Drop all tracks, for a camera that was reset; totals stay. As :meth:`finish`."""
        return self.finish()

    def lines(self) -> Dict[str, LineTotals]:
        """Totals since the last reset, by line."""
        return {
            name: LineTotals(into=into, out=out)
            for name, (into, out) in zip(self._line_names, self._line_totals.tolist())
        }

    def zones(self) -> Dict[str, ZoneState]:
        """State at the newest frame, by zone."""
        rows = self._present()
        time = self._now()
        now, stays = (
            self._zones.count(self._roster.points(rows)),
            self._zones.longest(rows, time),
        )
        return {
            name: ZoneState(int(now[z]), entered, left, float(stays[z]))
            for z, (name, (entered, left)) in enumerate(
                zip(self._zone_names, self._zone_totals.tolist())
            )
        }

    def restore(self, lines: Mapping[str, LineTotals], zones: Mapping[str, ZoneState]) -> None:
        """Take totals over from an earlier run; names that are not configured are ignored."""
        for name, held in zip(self._line_names, self._line_totals):
            if name in lines:
                held[:] = lines[name].into, lines[name].out
        for name, held in zip(self._zone_names, self._zone_totals):
            if name in zones:
                held[:] = zones[name].entered, zones[name].left

    def reset(self) -> None:
        """Set all totals to zero; people in view stay known."""
        self._line_totals = np.zeros((len(self._line_names), 2), np.int64)
        self._zone_totals = np.zeros((len(self._zone_names), 2), np.int64)

    def _fit(self, info: FrameInfo) -> List[CountEvent]:
        """Follow a change of the picture's size; one of its shape ends all tracks."""
        if (info.width, info.height) == (self._canvas.width, self._canvas.height):
            return []
        canvas = Canvas(info.width, info.height)
        events = [] if canvas.same_shape(self._canvas) else self.finish()
        self._canvas = canvas
        self._lines.fit(canvas)
        self._zones.fit(canvas)
        return events

    def _advance(self, motion: Motion) -> "_Found":
        if not len(motion.rows):
            return _Found()
        crossings = self._lines.step(motion) if self._line_names else []
        passages = self._zones.step(motion) if self._zone_names else []
        return _Found(crossings, passages)

    def _admit(
        self, tracks: Tracks, fresh: IndexArray, points: FloatArray, sizes: FloatArray
    ) -> "_Found":
        """Give rows to new tracks that are confirmed, and let the others wait."""
        assert self._info is not None
        arrivals: Dict[int, List[Sighting]] = {}
        for n in fresh.tolist():
            track = int(tracks.ids[n])
            self._roster.wait(track, Sighting(self._info.time, points[n], float(sizes[n])))
            if tracks.confirmed[n]:
                arrivals[track] = self._roster.waited(track)
        found = _Found()
        placed = self._roster.place([(track, seen[0]) for track, seen in arrivals.items()])
        self._grow()
        for track, sightings in arrivals.items():
            row, stitched = placed[track]
            self._doubt("stitched" if stitched else "appeared", sightings[0])
            if not stitched:
                self._lines.start(row, sightings[0].point)
                self._zones.start(row, sightings[0])
            for sighting in sightings if stitched else sightings[1:]:
                found.add(self._replay(row, sighting))
        return found

    def _replay(self, row: int, sighting: Sighting) -> "_Found":
        return self._advance(
            self._roster.move(
                np.array([row], np.intp),
                sighting.point[None],
                np.array([sighting.size]),
                sighting.time,
            )
        )

    def _grow(self) -> None:
        self._lines.grow(self._roster.capacity)
        self._zones.grow(self._roster.capacity)

    def _close(self, rows: Sequence[int]) -> "_Found":
        found = _Found()
        for row in rows:
            last = self._roster.last(row)
            self._doubt("lost", last)
            crossings = self._lines.end(row)
            self._forecast.note("unfinished", self._now(), len(crossings))
            found.add(_Found(crossings, self._zones.end(row, last.time)))
            self._roster.close(row)
        return found

    def _new_roster(self, capacity: int) -> Roster:
        return Roster(self._rules.stitch, capacity)

    def _doubt(self, trace: Trace, sighting: Sighting) -> None:
        """Note a trace beside a line, unless the picture's edge explains it."""
        width, height = self._canvas.scale
        x, y = sighting.point.tolist()
        if min(x, width - x, y, height - y) > sighting.size:
            self._forecast.note(trace, self._now(), self._lines.beside(sighting.point))

    def _now(self) -> float:
        return self._info.time if self._info else 0.0

    def _present(self) -> IndexArray:
        return self._roster.seen_since(self._now() - self._rules.hold_s)

    def _events(self, found: "_Found") -> List[CountEvent]:
        """Turn what was found into events, oldest first, and add it to the totals."""
        if not found.crossings and not found.passages:
            return []
        assert self._info is not None
        self._forecast.note("crossed", self._info.time, len(found.crossings))
        events = [self._line_event(c, self._info) for c in found.crossings]
        events += [self._zone_event(p, self._info) for p in found.passages]
        return sorted(events, key=lambda e: (e.ts, e.track))

    def _line_event(self, crossing: Crossing, info: FrameInfo) -> CountEvent:
        column = 0 if crossing.sign > 0 else 1
        self._line_totals[crossing.line, column] += 1
        return CountEvent(
            kind="line",
            camera=self._camera,
            name=self._line_names[crossing.line],
            direction=("in", "out")[column],
            track=int(self._roster.ids[crossing.row]),
            frame=info.index,
            ts=_wall_clock(crossing.time, info),
        )

    def _zone_event(self, passage: Passage, info: FrameInfo) -> CountEvent:
        column = 0 if passage.entered else 1
        self._zone_totals[passage.zone, column] += 1
        return CountEvent(
            kind="zone",
            camera=self._camera,
            name=self._zone_names[passage.zone],
            direction=("entered", "left")[column],
            track=int(self._roster.ids[passage.row]),
            frame=info.index,
            ts=_wall_clock(passage.time, info),
            dwell_s=passage.dwell_s,
        )


class _Found:
    """What became certain with one frame."""

    def __init__(
        self,
        crossings: Optional[List[Crossing]] = None,
        passages: Optional[List[Passage]] = None,
    ) -> None:
        self.crossings = crossings or []
        self.passages = passages or []

    def add(self, other: "_Found") -> None:
        self.crossings += other.crossings
        self.passages += other.passages


def _wall_clock(time: float, info: FrameInfo) -> float:
    """UTC of a stream time, by the clock as it is set now."""
    return time + (info.ts - info.time)


def _sizes(boxes: Float32Array) -> FloatArray:
    """(N,) geometric means of width and height."""
    spans = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0).astype(np.float64)
    result: FloatArray = np.sqrt(spans[:, 0] * spans[:, 1])
    return result
