"""Compare counted crossings and occupancy with the truth.

Events are matched one to one: the same line, the same direction, and frames that differ by
at most a window. Per line and direction both sides are sorted by frame and walked together,
the earliest true event taking the earliest counted one within reach. For windows of one
width this greedy walk finds a matching of the greatest possible size.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgecount.capture import open_source
from edgecount.capture.base import Source
from edgecount.config import ModelSettings, TileSettings
from edgecount.count.counter import CameraCounter
from edgecount.count.geometry import Anchor, Canvas
from edgecount.errors import DatasetError
from edgecount.infer import detector, onnxruntime
from edgecount.infer.base import Detector
from edgecount.infer.recipe import Recipe, model_keys
from edgecount.records import Detections, Frame, FrameInfo, Tracks
from edgecount.runtime.plan import make_tracker
from edgecount.toolchain.evaluate.motchallenge import SequenceInfo, read_rows
from edgecount.toolchain.evaluate.tiled import in_tiles
from edgecount.toolchain.evaluate.truth import (
    CAMERA,
    Counted,
    CountTruth,
    TruthEvent,
    frame_infos,
    perfect_tracks,
    run_counter,
)
from edgecount.track import two_stage
from edgecount.track.base import Tracker

DEFAULT_WINDOW = 20


@dataclass(frozen=True)
class LineScore:
    """One line: true and counted crossings, and those that found no partner."""

    name: str
    true_in: int
    true_out: int
    counted_in: int
    counted_out: int
    missed: int
    extra: int


@dataclass(frozen=True)
class ZoneScore:
    """One zone: true and counted entries and exits, and the mean error of its occupancy."""

    name: str
    true_entered: int
    true_left: int
    counted_entered: int
    counted_left: int
    occupancy_mae: float
    mean_true_occupancy: float


@dataclass(frozen=True)
class CountReport:
    """The result of ``edgecount eval count``.

    Attributes:
        lines: Score of each line.
        zones: Score of each zone.
        true: True crossings of all lines.
        counted: Counted crossings of all lines.
        missed: True crossings without a counted partner.
        extra: Counted crossings without a true partner.
        total_error: Sum over lines and directions of the difference of the two totals.
        occupancy_mae: Mean over frames and zones of the occupancy's absolute error.
        frames: Number of frames compared.
        window: Frames by which two matched events may differ.
    """

    lines: List[LineScore]
    zones: List[ZoneScore]
    true: int
    counted: int
    missed: int
    extra: int
    total_error: int
    occupancy_mae: float
    frames: int
    window: int

    def as_dict(self) -> Dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def matched(true: Sequence[int], counted: Sequence[int], window: int) -> int:
    """How many pairs can be made of two lists of frames, at most ``window`` apart.

    Args:
        true: Frames of true events, any order.
        counted: Frames of counted events, any order.
        window: Largest difference of a pair.
    """
    left, right = sorted(true), sorted(counted)
    i = j = pairs = 0
    while i < len(left) and j < len(right):
        if abs(left[i] - right[j]) <= window:
            i, j, pairs = i + 1, j + 1, pairs + 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    return pairs


def compare(truth: CountTruth, counted: Counted, window: int = DEFAULT_WINDOW) -> CountReport:
    """Score what was counted against the truth.

    Frames beyond the shorter of the two are not compared for occupancy.
    """
    lines = [_line_score(line.name, truth.events, counted.events, window) for line in truth.lines]
    zones = [
        _zone_score(zone.name, truth, counted, column) for column, zone in enumerate(truth.zones)
    ]
    return CountReport(
        lines=lines,
        zones=zones,
        true=sum(s.true_in + s.true_out for s in lines),
        counted=sum(s.counted_in + s.counted_out for s in lines),
        missed=sum(s.missed for s in lines),
        extra=sum(s.extra for s in lines),
        total_error=sum(
            abs(s.true_in - s.counted_in) + abs(s.true_out - s.counted_out) for s in lines
        ),
        occupancy_mae=sum(z.occupancy_mae for z in zones) / len(zones) if zones else 0.0,
        frames=len(counted.occupancy),
        window=window,
    )


def count_stream(
    truth: CountTruth,
    stream: Iterator[Tuple[FrameInfo, Tracks]],
    anchor: Anchor,
    fps: float,
) -> Counted:
    """Run the product's counter over tracks, with the truth's lines and zones.

    Args:
        truth: Gives the lines and zones.
        stream: Frames and their tracks; ``ts`` is the stream time.
        anchor: Which point of a box is the person.
        fps: Rate of the stream, for the frame numbers of events.
    """
    counter = CameraCounter(CAMERA, truth.lines, truth.zones, anchor)
    return run_counter(counter, stream, fps)


@dataclass(frozen=True)
class TrackStream:
    """Frames with their tracks, and the anchor that suits them."""

    frames: Iterator[Tuple[FrameInfo, Tracks]]
    anchor: Anchor


def stream_of_tracks(path: Path, truth: CountTruth, fps: float) -> TrackStream:
    """Tracks from a MOTChallenge file (boxes of score 0 are left out).

    Raises:
        DatasetError: The file is missing or malformed.
    """
    rows = read_rows(path)
    return TrackStream(perfect_tracks(rows, _sequence(truth, fps)), truth.anchor)


def stream_of_detections(path: Path, truth: CountTruth, fps: float) -> TrackStream:
    """Detections from a MOTChallenge file, followed by the default tracker.

    Raises:
        DatasetError: The file is missing or malformed.
    """
    rows = read_rows(path)
    detections = (
        (info, rows.detections(info.index + 1)) for info in frame_infos(_sequence(truth, fps))
    )
    return TrackStream(tracked(detections, two_stage.create(two_stage.Options())), truth.anchor)


def stream_of_clip(
    source: str,
    model: Optional[str],
    truth: CountTruth,
    fps: float,
    *,
    size: Optional[int] = None,
    tiles: Optional[TileSettings] = None,
) -> TrackStream:
    """A clip through the product's own detector and tracker.

    Args:
        source: Video file or folder of pictures.
        model: ONNX file, model folder or name of a shipped model; None is the default model.
        truth: Gives the size that the pictures must have.
        fps: True rate of the clip.
        size: Side of the network's input; the recipe's where None.
        tiles: How each frame is cut; None for not at all.

    Raises:
        ConfigError, ModelError: No such model, or it cannot be loaded.
        SourceError: The clip cannot be read.
        DatasetError: The pictures have another shape than the truth's.
    """
    keys = {**model_keys(model), "input_size": (size, size) if size else None}
    loaded, recipe = detector.create(ModelSettings.model_validate(keys), onnxruntime.open_network)
    return stream_of_detector(source, in_tiles(loaded, tiles), recipe, truth, fps)


def stream_of_detector(
    source: str, loaded: Detector, recipe: Recipe, truth: CountTruth, fps: float
) -> TrackStream:
    """A clip through a detector that is at hand, and the default tracker.

    Arguments and errors are those of :func:`stream_of_clip`, besides the detector and its recipe.
    """
    clip = open_source(CAMERA, source, {"kind": "file", "fps": fps, "start": 0.0})
    tracker = make_tracker({}, recipe, "eval count")
    detections = ((f.info, loaded.detect([f.image])[0]) for f in _frames_of(clip, truth))
    return TrackStream(tracked(detections, tracker), recipe.anchor)


def report_of_detector(
    source: str, loaded: Detector, recipe: Recipe, truth: CountTruth
) -> CountReport:
    """Count a clip with a detector that is at hand, at its true rate, and compare.

    Arguments and errors are those of :func:`stream_of_detector`.
    """
    stream = stream_of_detector(source, loaded, recipe, truth, truth.fps)
    return compare(truth, count_stream(truth, stream.frames, stream.anchor, truth.fps))


def tracked(
    detections: Iterator[Tuple[FrameInfo, Detections]], tracker: Tracker
) -> Iterator[Tuple[FrameInfo, Tracks]]:
    """Run a tracker over detections."""
    before: Optional[float] = None
    for info, found in detections:
        step = 0.0 if before is None else info.time - before
        before = info.time
        yield info, tracker.update(found, step)


def _frames_of(clip: Source, truth: CountTruth) -> Iterator[Frame]:
    clip.open()
    try:
        frame = clip.read()
        while frame is not None:
            _check_shape(frame.info, truth)
            yield frame
            frame = clip.read()
    finally:
        clip.close()


def _check_shape(info: FrameInfo, truth: CountTruth) -> None:
    if not Canvas(info.width, info.height).same_shape(Canvas(truth.width, truth.height)):
        raise DatasetError(
            f"the clip is {info.width}×{info.height}, but the truth is of pictures of "
            f"{truth.width}×{truth.height}: take the clip that the truth was made for"
        )


def _sequence(truth: CountTruth, fps: float) -> SequenceInfo:
    return SequenceInfo(CAMERA, fps, truth.frames, truth.width, truth.height)


def _line_score(
    name: str, true: Sequence[TruthEvent], counted: Sequence[TruthEvent], window: int
) -> LineScore:
    ours = {d: _frames(true, "line", name, d) for d in ("in", "out")}
    theirs = {d: _frames(counted, "line", name, d) for d in ("in", "out")}
    pairs = sum(matched(ours[d], theirs[d], window) for d in ours)
    return LineScore(
        name=name,
        true_in=len(ours["in"]),
        true_out=len(ours["out"]),
        counted_in=len(theirs["in"]),
        counted_out=len(theirs["out"]),
        missed=_total(ours) - pairs,
        extra=_total(theirs) - pairs,
    )


def _zone_score(name: str, truth: CountTruth, counted: Counted, column: int) -> ZoneScore:
    frames = min(truth.frames, len(counted.occupancy))
    true = np.array(truth.occupancy[name][:frames], np.float64)
    errors = np.abs(counted.occupancy[:frames, column] - true)
    return ZoneScore(
        name=name,
        true_entered=len(_frames(truth.events, "zone", name, "entered")),
        true_left=len(_frames(truth.events, "zone", name, "left")),
        counted_entered=len(_frames(counted.events, "zone", name, "entered")),
        counted_left=len(_frames(counted.events, "zone", name, "left")),
        occupancy_mae=float(errors.mean()) if frames else 0.0,
        mean_true_occupancy=float(true.mean()) if frames else 0.0,
    )


def _frames(events: Sequence[TruthEvent], kind: str, name: str, direction: str) -> List[int]:
    return [e.frame for e in events if (e.kind, e.name, e.direction) == (kind, name, direction)]


def _total(by_direction: Mapping[str, Sequence[int]]) -> int:
    return sum(len(frames) for frames in by_direction.values())
