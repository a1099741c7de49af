"""Simulated scenes with exact truth, for tracker and counter.

People are heads that walk along given ways in a 1280×720 picture; a model of a detector
sees them with jitter, misses, false detections, occlusions and drop-outs. Everything
follows from one seed. The truth of a scene is that of :mod:`.evaluate.truth` on the exact
ways.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple
from zlib import crc32

import numpy as np
import yaml

from edgecount.config import LineSettings, ZoneSettings
from edgecount.count.geometry import FloatArray, MaskArray
from edgecount.discovery import nearest
from edgecount.errors import ConfigError, DatasetError
from edgecount.records import Float32Array
from edgecount.toolchain.evaluate import count
from edgecount.toolchain.evaluate.motchallenge import Rows, SequenceInfo, write_rows
from edgecount.toolchain.evaluate.truth import (
    CountTruth,
    LinesFile,
    derive,
    frame_infos,
    write_truth_file,
)
from edgecount.track.base import Tracker

WIDTH, HEIGHT = 1280, 720
DEFAULT_SEED = 1
_HEAD = 44.0  # mean size of a head, pixels
_SPEED = 150.0  # mean walking speed, pixels per second
_DRIFT = 3.0  # standard deviation of a head's place while it stands, pixels
_MARGIN = 40.0  # people come from and go this far beyond the picture's edge
_MIDDLE = HEIGHT / 2

Random = np.random.Generator
Point = Tuple[float, float]
# Corners and seconds to wait there.
Stops = Sequence[Tuple[Point, float]]


@dataclass(frozen=True)
class Person:
    """Somebody's way: one point for each frame from ``first`` (from 0) on, and a head size."""

    first: int
    points: FloatArray
    size: float


@dataclass(frozen=True)
class DetectorModel:
    """What the simulated detector does wrong.

    Attributes:
        recall: Chance that a visible head is found in a frame.
        jitter: Standard deviation of centre and size, as a fraction of the size.
        false_per_frame: Mean number of false detections in a frame.
        hides: Strip of y (from, to) in which heads are hidden, pixels.
        crowding: IoU with a head nearer to the camera above which a head is not seen.
        dropout: Every so many seconds, for so many seconds, nothing is seen at all.
    """

    recall: float = 0.97
    jitter: float = 0.04
    false_per_frame: float = 0.02
    hides: Optional[Tuple[float, float]] = None
    crowding: float = 0.4
    dropout: Optional[Tuple[float, float]] = None


@dataclass(frozen=True)
class Scenario:
    """A kind of scene.

    Attributes:
        name: Its name.
        about: What happens in it.
        people: Makes the people of a scene from random numbers and the frame rate.
        fps: Frames per second.
        seconds: Its length.
        detector: How it is seen.
    """

    name: str
    about: str
    people: "Callable[[Random, Scenario], List[Person]]"
    fps: float = 25.0
    seconds: float = 120.0
    detector: DetectorModel = DetectorModel()

    @property
    def frames(self) -> int:
        """Number of frames."""
        return round(self.seconds * self.fps)


class Scene(NamedTuple):
    """A simulated sequence: its ground truth, its detections and what to count in it."""

    info: SequenceInfo
    truth: Rows
    detections: Rows
    counted: CountTruth


@dataclass(frozen=True)
class Result:
    """How one scenario was counted.

    Attributes:
        scenario: Its name.
        people: Number of people in it.
        true: True crossings.
        counted: Counted crossings.
        missed: True crossings without a counted partner.
        extra: Counted crossings without a true partner.
        total_error: Sum over lines and directions of the difference of the totals.
        error: ``total_error`` / ``true``.
        occupancy_mae: Mean absolute error of the zone's occupancy.
    """

    scenario: str
    people: int
    true: int
    counted: int
    missed: int
    extra: int
    total_error: int
    error: float
    occupancy_mae: float

    def as_dict(self) -> Dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def lines_and_zone() -> LinesFile:
    """What is counted in every scene: a line across, a slanted one, and the middle as a zone."""
    across = {"name": "across", "from": (0.0, 0.5), "to": (1.0, 0.5)}
    slanted = {"name": "slanted", "from": (0.0, 0.75), "to": (1.0, 0.35)}
    middle = {"name": "middle", "polygon": [(0.2, 0.3), (0.8, 0.3), (0.8, 0.7), (0.2, 0.7)]}
    return LinesFile(
        [LineSettings.model_validate(across), LineSettings.model_validate(slanted)],
        [ZoneSettings.model_validate(middle)],
    )


def scenario(name: str) -> Scenario:
    """Look a scenario up. Raises ConfigError where there is none of that name."""
    known = {s.name: s for s in SCENARIOS}
    if name not in known:
        raise ConfigError(f"there is no scenario {name!r}{nearest(name, known)}")
    return known[name]


def simulate(kind: Scenario, seed: int = DEFAULT_SEED) -> Scene:
    """Make a scene; the same seed makes the same scene."""
    # The scenario's name is mixed in, so that scenes do not share their random numbers.
    rng = np.random.default_rng([seed, crc32(kind.name.encode())])
    people = kind.people(rng, kind)
    info = SequenceInfo(kind.name, kind.fps, kind.frames, WIDTH, HEIGHT)
    truth = _ground_truth(people, kind.frames)
    detections = _detect(truth, kind, rng)
    return Scene(info, truth, detections, derive(truth, info, lines_and_zone(), "center"))


def judge(scene: Scene, tracker: Tracker) -> Result:
    """Run tracker and counter over a scene's detections and compare with its truth."""
    detections = (
        (info, scene.detections.detections(info.index + 1)) for info in frame_infos(scene.info)
    )
    counted = count.count_stream(
        scene.counted, count.tracked(detections, tracker), "center", scene.info.fps
    )
    report = count.compare(scene.counted, counted)
    return Result(
        scenario=scene.info.name,
        people=len(np.unique(scene.truth.ids)),
        true=report.true,
        counted=report.counted,
        missed=report.missed,
        extra=report.extra,
        total_error=report.total_error,
        error=report.total_error / max(report.true, 1),
        occupancy_mae=report.occupancy_mae,
    )


def overall(results: Sequence[Result]) -> Result:
    """All scenarios as one."""
    true = sum(r.true for r in results)
    total_error = sum(r.total_error for r in results)
    return Result(
        scenario="overall",
        people=sum(r.people for r in results),
        true=true,
        counted=sum(r.counted for r in results),
        missed=sum(r.missed for r in results),
        extra=sum(r.extra for r in results),
        total_error=total_error,
        error=total_error / max(true, 1),
        occupancy_mae=sum(r.occupancy_mae for r in results) / max(len(results), 1),
    )


def write_scene(scene: Scene, folder: Path) -> None:
    """Write a scene in the MOTChallenge layout, with ``lines.yaml`` and ``truth.yaml`` beside.

    Raises:
        DatasetError: The folder cannot be written.
    """
    try:
        write_rows(folder / "gt.txt", scene.truth)
        write_rows(folder / "det.txt", scene.detections)
        (folder / "seqinfo.ini").write_text(_seqinfo(scene.info), encoding="utf-8")
        places = scene.counted.model_dump(mode="json", by_alias=True, include={"lines", "zones"})
        text = yaml.safe_dump(places, sort_keys=False, default_flow_style=None)
        (folder / "lines.yaml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written: {error}") from error
    write_truth_file(folder / "truth.yaml", scene.counted)


def _seqinfo(info: SequenceInfo) -> str:
    return (
        f"[Sequence]\nname={info.name}\nframeRate={info.fps:g}\nseqLength={info.length}\n"
        f"imWidth={info.width}\nimHeight={info.height}\n"
    )


def _ground_truth(people: Sequence[Person], frames: int) -> Rows:
    """Boxes of all heads whose centre is in the picture."""
    numbers, ids, centres, sizes = [], [], [], []
    for track, person in enumerate(people, 1):
        points = person.points[: max(0, frames - person.first)]
        inside = ((points >= 0.0) & (points < (WIDTH, HEIGHT))).all(axis=1)
        numbers.append(person.first + 1 + np.flatnonzero(inside))
        ids.append(np.full(inside.sum(), track))
        centres.append(points[inside])
        sizes.append(np.full(inside.sum(), person.size))
    number, track_ids = np.concatenate(numbers), np.concatenate(ids)
    order = np.lexsort((track_ids, number))
    centre, half = np.concatenate(centres)[order], 0.5 * np.concatenate(sizes)[order, None]
    return Rows(
        number[order].astype(np.int32),
        track_ids[order].astype(np.int64),
        np.hstack((centre - half, centre + half)).astype(np.float32),
        np.ones(len(number), np.float32),
    )


def _detect(truth: Rows, kind: Scenario, rng: Random) -> Rows:
    """The detector's view of a scene, frame by frame."""
    frames, boxes, scores = [], [], []
    for frame in range(1, kind.frames + 1):
        found, score = _detect_frame(truth.boxes[truth.span(frame)], kind, frame, rng)
        frames.append(np.full(len(found), frame, np.int32))
        boxes.append(found)
        scores.append(score)
    number = np.concatenate(frames)
    return Rows(
        number,
        np.full(len(number), -1, np.int64),
        np.concatenate(boxes).astype(np.float32),
        np.concatenate(scores).astype(np.float32),
    )


def _detect_frame(
    heads: Float32Array, kind: Scenario, frame: int, rng: Random
) -> Tuple[FloatArray, FloatArray]:
    model = kind.detector
    seen = _visible(heads, model) & (rng.random(len(heads)) < model.recall)
    if model.dropout is not None and (frame / kind.fps) % model.dropout[0] < model.dropout[1]:
        seen &= False
    centre, size = _centres(heads[seen]), (heads[seen, 2] - heads[seen, 0])[:, None]
    centre = centre + rng.normal(0.0, model.jitter, centre.shape) * size
    size = size * np.exp(rng.normal(0.0, model.jitter, centre.shape))
    false = rng.poisson(model.false_per_frame)
    centre = np.vstack((centre, rng.uniform((0, 0), (WIDTH, HEIGHT), (false, 2))))
    size = np.vstack((size, np.full((false, 2), _HEAD)))
    score = np.concatenate((rng.normal(0.75, 0.08, seen.sum()), rng.uniform(0.3, 0.6, false)))
    return np.hstack((centre - size / 2, centre + size / 2)), np.clip(score, 0.05, 0.99)


def _visible(heads: Float32Array, model: DetectorModel) -> MaskArray:
    """Heads that are neither behind the strip nor behind a head that is nearer (lower)."""
    bottom = heads[:, 3]
    overlap = _iou(heads)
    nearer = bottom[None, :] > bottom[:, None]
    seen: MaskArray = ~np.any((overlap > model.crowding) & nearer, axis=1)
    if model.hides is not None:
        y = _centres(heads)[:, 1]
        seen &= (y < model.hides[0]) | (y > model.hides[1])
    return seen


def _iou(boxes: Float32Array) -> FloatArray:
    """(N, N) overlaps of boxes with each other."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common: FloatArray = np.prod(np.clip(high - low, 0.0, None), axis=2, dtype=np.float64)
    area: FloatArray = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64)
    return common / (area[:, None] + area[None, :] - common)


def _centres(boxes: Float32Array) -> FloatArray:
    corners = boxes.astype(np.float64)
    return 0.5 * (corners[:, :2] + corners[:, 2:])


def _way(rng: Random, kind: Scenario, stops: Stops, speed: float) -> FloatArray:
    """Points, one a frame, of a walk from stop to stop, with a waiting time at each.

    Heads sway while they walk, and drift slowly while they stand.
    """
    parts: List[FloatArray] = []
    for (start, wait), (end, _) in zip(stops, stops[1:]):
        if wait > 0.0:
            parts.append(np.array(start) + _drift(rng, round(wait * kind.fps), kind.fps))
        way = np.subtract(end, start)
        steps = max(1, round(float(np.hypot(*way)) / speed * kind.fps))
        parts.append(np.array(start) + np.arange(steps)[:, None] / steps * way)
    points = np.concatenate(parts)
    phase = 2.0 * np.pi * (rng.random() + 1.8 * np.arange(len(points)) / kind.fps)
    points[:, 0] += 2.5 * np.sin(phase)
    points[:, 1] += 1.5 * np.sin(2.0 * phase)
    return points


def _drift(rng: Random, frames: int, fps: float) -> FloatArray:
    """A slow random walk that is drawn back to where it began, a few pixels wide."""
    pull, result = 1.0 / fps, np.zeros((frames, 2))
    step = rng.normal(0.0, _DRIFT * np.sqrt(2.0 * pull), (frames, 2))
    for n in range(1, frames):
        result[n] = (1.0 - pull) * result[n - 1] + step[n]
    return result


def _arrivals(rng: Random, kind: Scenario, per_second: float) -> List[int]:
    """Frames at which somebody comes; the last ones have time to arrive."""
    number = round(per_second * (kind.seconds - 10.0))
    times = np.sort(rng.uniform(0.0, kind.seconds - 10.0, number))
    return [round(t * kind.fps) for t in times.tolist()]


def _person(rng: Random, kind: Scenario, first: int, stops: Stops, speed: float) -> Person:
    size = _HEAD * float(rng.uniform(0.8, 1.2))
    return Person(first, _way(rng, kind, stops, speed), size)


def _through(rng: Random, slope: float) -> Tuple[Point, Point]:
    """Somewhere at the top to somewhere at the bottom edge, or the other way round."""
    x = float(rng.uniform(100, WIDTH - 100))
    top = (x, -_MARGIN)
    bottom = (float(np.clip(x + rng.normal(0.0, slope), 50, WIDTH - 50)), HEIGHT + _MARGIN)
    return (top, bottom) if rng.random() < 0.5 else (bottom, top)


def _speed(rng: Random) -> float:
    return float(np.clip(rng.normal(_SPEED, 30.0), 70.0, 260.0))


def _walkers(per_second: float) -> "Callable[[Random, Scenario], List[Person]]":
    def people(rng: Random, kind: Scenario) -> List[Person]:
        ways = [(n, _through(rng, 150.0)) for n in _arrivals(rng, kind, per_second)]
        return [_person(rng, kind, n, [(a, 0.0), (b, 0.0)], _speed(rng)) for n, (a, b) in ways]

    return people


def _runners(rng: Random, kind: Scenario) -> List[Person]:
    ways = [(n, _through(rng, 60.0)) for n in _arrivals(rng, kind, 0.4)]
    return [
        _person(rng, kind, n, [(a, 0.0), (b, 0.0)], float(rng.uniform(350.0, 650.0)))
        for n, (a, b) in ways
    ]


def _loiterers(rng: Random, kind: Scenario) -> List[Person]:
    """Walk to the line across, stand on it, and go on or back."""
    people = []
    for first in _arrivals(rng, kind, 0.25):
        start, end = _through(rng, 100.0)
        stand = (0.5 * (start[0] + end[0]), _MIDDLE + float(rng.normal(0.0, 6.0)))
        wait = float(rng.uniform(3.0, 20.0))
        last = end if rng.random() < 0.5 else start
        stops = [(start, 0.0), (stand, wait), (last, 0.0)]
        people.append(_person(rng, kind, first, stops, _speed(rng)))
    return people


def _turners(rng: Random, kind: Scenario) -> List[Person]:
    """Walk up to the line across or past it, turn, and go back."""
    people = []
    for first in _arrivals(rng, kind, 0.35):
        start, end = _through(rng, 100.0)
        away = 1.0 if end[1] > start[1] else -1.0
        depth = float(rng.choice([-40.0, 80.0, 160.0])) + float(rng.normal(0.0, 10.0))
        turn = (0.5 * (start[0] + end[0]), _MIDDLE + away * depth)
        stops = [(start, 0.0), (turn, float(rng.uniform(0.0, 3.0))), (start, 0.0)]
        people.append(_person(rng, kind, first, stops, _speed(rng)))
    return people


SCENARIOS: Tuple[Scenario, ...] = (
    Scenario("walking", "people walk through, both ways", _walkers(0.4)),
    Scenario("crowd", "dense crowds in two directions", _walkers(1.5)),
    Scenario("loitering", "people stand on the line, then go on or back", _loiterers),
    Scenario("u-turns", "people turn before or behind the line", _turners),
    Scenario("runners", "fast runners at 5 frames per second", _runners, fps=5.0),
    Scenario(
        "occlusion",
        "a beam hides everybody on the line",
        _walkers(0.4),
        detector=DetectorModel(hides=(_MIDDLE - 40.0, _MIDDLE + 40.0)),
    ),
    Scenario(
        "flicker",
        "the detector finds 60 % of the heads",
        _walkers(0.4),
        detector=DetectorModel(recall=0.6),
    ),
    Scenario(
        "drop-outs",
        "every 4 s nothing is seen for 0.6 s",
        _walkers(0.4),
        detector=DetectorModel(dropout=(4.0, 0.6)),
    ),
)
