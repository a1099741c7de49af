#!/usr/bin/env python3
"""Counters side by side: the same detections, each with its own tracker and line counter.

    pip install -e '.[bench]'
    python tests/bench/counters.py SEQUENCE… [--anchor bottom] [--random-lines 90] [--json]

A SEQUENCE is a folder with ``gt.txt``, ``det.txt``, ``seqinfo.ini`` and, unless
``--random-lines`` is given, ``lines.yaml``: what ``edgecount simulate --out`` writes, or a
MOTChallenge sequence. Random lines come from one seed and lie where people walk.

Everybody is judged by the same truth (``edgecount eval make-truth``): missed and extra
crossings, matched one to one within ±20 frames. Which side the others call "in" is found
out with one synthetic walker for each line.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

# The script trackers.py beside this one would hide roboflow's package of that name.
sys.path[:] = [
    entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent
]

import norfair  # noqa: E402
import numpy as np  # noqa: E402
import supervision as sv  # noqa: E402
import trackers as roboflow  # noqa: E402

from edgecount.config import LineSettings  # noqa: E402
from edgecount.count.geometry import Canvas, LineGeometry, anchors  # noqa: E402
from edgecount.records import Detections  # noqa: E402
from edgecount.toolchain.evaluate import count, motchallenge, truth  # noqa: E402
from edgecount.track import two_stage  # noqa: E402

Event = Tuple[str, str, int]  # line, direction, frame from 1
Frames = List[Tuple[int, Detections]]
Follow = Callable[[sv.Detections], sv.Detections]


class SignChange:
    """What tutorials do: the anchor's side changes within the line's ends, once per id."""

    def __init__(self, line: LineSettings, canvas: Canvas, anchor: str) -> None:
        self._geometry = LineGeometry.of([line], canvas)
        self._canvas, self._anchor = canvas, anchor
        self._side: Dict[int, bool] = {}

    def __call__(self, tracked: sv.Detections) -> List[bool]:
        """Crossings of one frame: True for in."""
        points = anchors(tracked.xyxy, self._anchor) / self._canvas.diagonal
        crossings = []
        for track, point in zip(tracked.tracker_id.tolist(), points):
            side = bool(self._geometry.distances(point[None])[0, 0] > 0)
            within = 0.0 <= self._geometry.position(point, 0) <= 1.0
            if within and self._side.get(track, side) != side:
                crossings.append(side)
            self._side[track] = side
        return crossings


class Zone:
    """supervision's LineZone."""

    def __init__(self, line: LineSettings, canvas: Canvas, anchor: Any) -> None:
        ends = [sv.Point(x * canvas.width, y * canvas.height) for x, y in (line.start, line.end)]
        chosen = {} if anchor is None else {"triggering_anchors": [anchor]}
        self._make = lambda: sv.LineZone(*ends, **chosen)
        self._zone = self._make()
        self._turned = self._is_turned(line, canvas)

    def __call__(self, tracked: sv.Detections) -> List[bool]:
        into, out = self._zone.trigger(tracked)
        flags = [True] * int(into.sum()) + [False] * int(out.sum())
        return [flag != self._turned for flag in flags]

    def _is_turned(self, line: LineSettings, canvas: Canvas) -> bool:
        """Walk once from left to right over the middle: is that its "out"?"""
        middle = np.mean(canvas.points([line.start, line.end]), axis=0)
        normal = LineGeometry.of([line], canvas).normals[0]
        zone = self._make()
        for step in np.linspace(-0.1, 0.1, 21):
            x, y = (middle + step * normal) * canvas.diagonal
            box = np.array([[x - 1, y - 1, x + 1, y + 1]])
            zone.trigger(sv.Detections(xyxy=box, tracker_id=np.array([1])))
        return bool(zone.out_count)


def edgecount_events(sample: "Sample") -> List[Event]:
    """Our tracker and counter, at their defaults."""
    infos = truth.frame_infos(sample.info)
    detections = ((i, d) for i, (_, d) in zip(infos, sample.frames))
    tracked = count.tracked(detections, two_stage.create(two_stage.Options()))
    counted = count.count_stream(sample.truth, tracked, sample.truth.anchor, sample.info.fps)
    return [(e.name, e.direction, e.frame) for e in counted.events if e.kind == "line"]


def peer_events(
    sample: "Sample", follow: Follow, counter: Callable[[LineSettings, Canvas], Any]
) -> List[Event]:
    """Somebody else's tracker and counter."""
    canvas = Canvas(sample.info.width, sample.info.height)
    counters = [(line.name, counter(line, canvas)) for line in sample.truth.lines]
    events = []
    for frame, found in sample.frames:
        tracked = follow(_as_supervision(found))
        if tracked.tracker_id is None:
            continue
        tracked = tracked[tracked.tracker_id >= 0]
        for name, one in counters:
            events += [(name, "in" if into else "out", frame) for into in one(tracked)]
    return events


class Sample:
    """A sequence, its detections and its truth."""

    def __init__(self, folder: Path, anchor: str, lines: Sequence[LineSettings]) -> None:
        self.name = folder.name
        self.info = motchallenge.read_info(folder)
        places = (
            truth.LinesFile(list(lines), []) if lines else truth.read_lines(folder / "lines.yaml")
        )
        rows = motchallenge.read_truth(folder)
        self.truth = truth.derive(rows, self.info, places, anchor)
        detections = motchallenge.read_detections(folder)
        self.frames: Frames = [
            (n, detections.detections(n)) for n in range(1, self.info.length + 1)
        ]


def systems(anchor: str, fps: float) -> Iterator[Tuple[str, Callable[[Sample], List[Event]]]]:
    """Everybody, each fresh."""
    point = sv.Position.BOTTOM_CENTER if anchor == "bottom" else sv.Position.CENTER
    # supervision's and roboflow's time-outs count frames at their frame_rate.
    byte = _bytetrack(fps)
    zones = {
        "LineZone, default corners": lambda line, canvas: Zone(line, canvas, None),
        f"LineZone, {anchor}": lambda line, canvas: Zone(line, canvas, point),
        "sign change": lambda line, canvas: SignChange(line, canvas, anchor),
    }
    yield "edgecount", edgecount_events
    for name, counter in zones.items():
        yield f"supervision ByteTrack + {name}", _peer(byte, counter)
    yield "norfair + sign change", _peer(_norfair(fps), zones["sign change"])
    for name in ("ByteTrackTracker", "OCSORTTracker", "SORTTracker"):
        follow = _roboflow(name, fps)
        yield f"roboflow {name} + LineZone, {anchor}", _peer(follow, zones[f"LineZone, {anchor}"])


def random_lines(number: int, seed: int) -> List[LineSettings]:
    """Vertical, horizontal and slanted lines in turn, most of the picture long."""
    rng = np.random.default_rng(seed)
    return [_random_line(rng, n) for n in range(number)]


def _random_line(rng: np.random.Generator, n: int) -> LineSettings:
    across, along = rng.uniform(0.2, 0.8), rng.uniform(0.35, 0.75)
    lean = rng.uniform(-0.03, 0.03)
    start, end = (
        ((across - lean, 0.2), (across + lean, 0.95)),
        ((0.05, along - lean), (0.95, along + lean)),
        ((rng.uniform(0.1, 0.4), 0.2), (rng.uniform(0.6, 0.9), 0.9)),
    )[n % 3]
    if n % 3 == 2 and rng.random() < 0.5:
        start, end = (1.0 - start[0], start[1]), (1.0 - end[0], end[1])
    if rng.random() < 0.5:
        start, end = end, start
    name = ("vertical", "horizontal", "slanted")[n % 3] + str(n // 3)
    return LineSettings.model_validate({"name": name, "from": start, "to": end})


def _bytetrack(fps: float) -> Callable[[], Follow]:
    def make() -> Follow:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its deprecation notice
            tracker = sv.ByteTrack(frame_rate=round(fps))
        return tracker.update_with_detections

    return make


def _norfair(fps: float) -> Callable[[], Follow]:
    """norfair with IoU distance; it keeps a lost track for about a second."""

    def make() -> Follow:
        tracker = norfair.Tracker("iou", distance_threshold=0.7, hit_counter_max=round(fps))

        def follow(found: sv.Detections) -> sv.Detections:
            seen = [norfair.Detection(box.reshape(2, 2)) for box in found.xyxy]
            tracks = [t for t in tracker.update(seen) if t.id is not None]
            if not tracks:
                return sv.Detections.empty()
            boxes = np.array([t.estimate.reshape(4) for t in tracks])
            return sv.Detections(xyxy=boxes, tracker_id=np.array([t.id for t in tracks]))

        return follow

    return make


def _roboflow(name: str, fps: float) -> Callable[[], Follow]:
    return lambda: getattr(roboflow, name)(frame_rate=fps).update


def _peer(
    make_follow: Callable[[], Follow], counter: Callable[[LineSettings, Canvas], Any]
) -> Callable[[Sample], List[Event]]:
    return lambda sample: peer_events(sample, make_follow(), counter)


def _as_supervision(found: Detections) -> sv.Detections:
    return sv.Detections(
        xyxy=found.boxes.copy(),
        confidence=found.scores.copy(),
        class_id=found.classes.astype(int),
    )


def score(sample: Sample, events: Sequence[Event]) -> Dict[str, int]:
    """Missed, extra and the difference of the totals; of how many groups of three all is well."""
    true = [(e.name, e.direction, e.frame) for e in sample.truth.events if e.kind == "line"]
    names = [line.name for line in sample.truth.lines]
    by_line = {name: _score_line(name, true, events) for name in names}
    total = np.sum(list(by_line.values()), axis=0).tolist()
    triples = [names[n : n + 3] for n in range(0, len(names) - 2, 3)]
    sums = [np.sum([by_line[name] for name in triple], axis=0) for triple in triples]
    return {
        "true": len(true),
        "missed": total[0],
        "extra": total[1],
        "total_error": total[2],
        "triples": len(triples),
        "good_triples": sum(bool(missed <= 3 and extra <= 3) for missed, extra, _ in sums),
    }


def _score_line(name: str, true: Sequence[Event], events: Sequence[Event]) -> Tuple[int, int, int]:
    """Missed, extra and total error of one line."""
    missed = extra = total_error = 0
    for direction in ("in", "out"):
        ours = [f for n, d, f in true if (n, d) == (name, direction)]
        theirs = [f for n, d, f in events if (n, d) == (name, direction)]
        pairs = count.matched(ours, theirs, count.DEFAULT_WINDOW)
        missed += len(ours) - pairs
        extra += len(theirs) - pairs
        total_error += abs(len(ours) - len(theirs))
    return missed, extra, total_error


def main() -> None:
    """Count every sequence with everybody and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sequences", nargs="+", type=Path, metavar="SEQUENCE")
    parser.add_argument("--anchor", choices=("center", "bottom"), default="center")
    parser.add_argument("--random-lines", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="systems whose name holds this")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    lines = random_lines(arguments.random_lines, arguments.seed)
    table: Dict[str, Dict[str, Dict[str, int]]] = {}
    for folder in arguments.sequences:
        sample = Sample(folder, arguments.anchor, lines)
        for name, events in systems(arguments.anchor, sample.info.fps):
            if arguments.only not in name:
                continue
            table.setdefault(name, {})[sample.name] = score(sample, events(sample))
    if arguments.json:
        print(json.dumps(table, indent=2))
        return
    print("missed + extra (of true crossings); groups of three lines with at most 3 + 3")
    for name, row in table.items():
        cells = [
            f"{k} {s['missed']}+{s['extra']} ({s['true']}) {s['good_triples']}/{s['triples']}"
            for k, s in row.items()
        ]
        print(f"{name:55}", "  ".join(cells))


if __name__ == "__main__":
    main()
