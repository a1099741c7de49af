"""What a perfect counter would have counted, derived from MOTChallenge tracks.

Ground-truth tracks go through the very counter that the product uses, with its lines,
bands and return windows, but without any repair of broken tracks: every track is one
person. The result is a YAML file that holds all that ``edgecount eval count`` needs.

Boxes whose "consider" flag is 0 are no part of the truth. Holes in a track are bridged by
a straight line up to ``max_gap_s``; after a longer one the person counts as somebody new.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
import yaml
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import Annotated, Literal

from edgecount.config import LineSettings, Strict, ZoneSettings
from edgecount.count.counter import CameraCounter, Rules
from edgecount.count.geometry import Anchor, IndexArray
from edgecount.errors import DatasetError
from edgecount.records import CountEvent, FrameInfo, Int32Array, Int64Array, Tracks
from edgecount.toolchain.evaluate.motchallenge import Rows, SequenceInfo, read_info

DEFAULT_MAX_GAP_S = 2.0
CAMERA = "truth"


class LinesFile(NamedTuple):
    """The lines and zones of one camera."""

    lines: List[LineSettings]
    zones: List[ZoneSettings]


class TruthEvent(Strict):
    """A crossing, entry or exit.

    Frames count from 1 as in MOTChallenge; ``frame`` is the first one after it happened.
    """

    kind: Literal["line", "zone"] = Field(description="What it happened at.")
    name: str = Field(description="Name of the line or zone.")
    direction: Literal["in", "out", "entered", "left"] = Field(description="Which way.")
    frame: Annotated[int, Field(ge=1)] = Field(description="First frame after it, from 1.")
    person: int = Field(description="Id of the track in the ground truth.")


class CountTruth(Strict):
    """Everything that ``edgecount eval count`` compares with."""

    lines: List[LineSettings] = Field(default_factory=list, description="Lines, as configured.")
    zones: List[ZoneSettings] = Field(default_factory=list, description="Zones, as configured.")
    anchor: Literal["center", "bottom", "head"] = Field(description="Anchor of the truth.")
    fps: Annotated[float, Field(gt=0.0)] = Field(description="True rate of the clip.")
    frames: Annotated[int, Field(ge=0)] = Field(description="Number of frames.")
    width: Annotated[int, Field(gt=0)] = Field(description="Width of the picture, pixels.")
    height: Annotated[int, Field(gt=0)] = Field(description="Height of the picture, pixels.")
    events: List[TruthEvent] = Field(default_factory=list, description="In order of frames.")
    occupancy: Dict[str, List[int]] = Field(
        default_factory=dict, description="By zone: people in it, frame by frame."
    )


@dataclass(frozen=True)
class Counted:
    """What a counter made of a stream.

    Attributes:
        events: All events, by frame.
        occupancy: (frames, zones) int64, people in each zone.
    """

    events: List[TruthEvent]
    occupancy: Int64Array


def derive(
    truth: Rows,
    info: SequenceInfo,
    places: LinesFile,
    anchor: Anchor,
    max_gap_s: float = DEFAULT_MAX_GAP_S,
) -> CountTruth:
    """The true events of a sequence.

    Args:
        truth: Its ground truth.
        info: Its rate, length and size; the size must be known.
        places: Lines and zones.
        anchor: Which point of a ground-truth box is the person.
        max_gap_s: Longest hole in a track that is bridged, seconds.

    Raises:
        DatasetError: The size of the picture is not known.
    """
    if not info.width or not info.height:
        raise DatasetError(f"the size of {info.name}'s picture is not known: give --size WxH")
    counter = CameraCounter(CAMERA, places.lines, places.zones, anchor, Rules.for_perfect_tracks())
    counted = run_counter(counter, perfect_tracks(truth, info, max_gap_s), info.fps)
    return CountTruth(
        lines=places.lines,
        zones=places.zones,
        anchor=anchor,
        fps=info.fps,
        frames=info.length,
        width=info.width,
        height=info.height,
        events=counted.events,
        occupancy={z.name: counted.occupancy[:, n].tolist() for n, z in enumerate(places.zones)},
    )


def run_counter(
    counter: CameraCounter, stream: Iterator[Tuple[FrameInfo, Tracks]], fps: float
) -> Counted:
    """Count a whole stream whose ``ts`` is its stream time, and close it at its end."""
    events: List[CountEvent] = []
    occupancy: List[List[int]] = []
    for info, tracks in stream:
        events += counter.update(info, tracks)
        occupancy.append([zone.now for zone in counter.zones().values()])
    events += counter.finish()
    table = np.array(occupancy, np.int64).reshape(len(occupancy), -1)
    return Counted(sorted((_event(e, fps) for e in events), key=_order), table)


def frame_infos(info: SequenceInfo) -> Iterator[FrameInfo]:
    """Every frame of a sequence; ``ts`` is its stream time."""
    for index in range(info.length):
        time = index / info.fps
        yield FrameInfo(CAMERA, index, time, time, info.width, info.height)


def perfect_tracks(
    truth: Rows, info: SequenceInfo, max_gap_s: float = DEFAULT_MAX_GAP_S
) -> Iterator[Tuple[FrameInfo, Tracks]]:
    """Ground truth as a tracker would deliver it: all confirmed, holes bridged."""
    rows = bridged(truth.considered(), max(1, int(max_gap_s * info.fps + 1e-6)))
    last = {int(i): int(f) for f, i in zip(rows.frames, rows.ids)}
    ends: Dict[int, List[int]] = {}
    for track, frame in last.items():
        ends.setdefault(frame, []).append(track)
    for frame_info in frame_infos(info):
        frame = frame_info.index + 1
        span = rows.span(frame)
        yield frame_info, _confirmed(rows, span, sorted(ends.get(frame, ())))


def bridged(rows: Rows, max_gap: int) -> Rows:
    """Fill holes of up to ``max_gap`` frames linearly; after a longer one a new id begins."""
    pieces: List[Rows] = []
    fresh = int(rows.ids.max(initial=0)) + 1
    for track in np.unique(rows.ids):
        own = np.flatnonzero(rows.ids == track)
        cuts = np.flatnonzero(np.diff(rows.frames[own]) > max_gap + 1) + 1
        for n, piece in enumerate(np.split(own, cuts)):
            pieces.append(_filled(rows, piece, int(track) if n == 0 else fresh))
            fresh += n > 0
    if not pieces:
        return rows
    frames: Int32Array = np.concatenate([p.frames for p in pieces])
    ids = np.concatenate([p.ids for p in pieces])
    order = np.lexsort((ids, frames))
    return Rows(
        frames[order],
        ids[order],
        np.concatenate([p.boxes for p in pieces])[order],
        np.concatenate([p.scores for p in pieces])[order],
    )


def read_lines(path: Path) -> LinesFile:
    """Read lines and zones: a file of ``lines:`` and ``zones:``, a camera, or a configuration.

    A configuration must have exactly one camera. Keys of a camera that are not about lines
    and zones are ignored.

    Raises:
        DatasetError: The file cannot be read, or a line or zone is wrong.
    """
    data = _load(path)
    cameras = data.get("cameras", [data])
    if not isinstance(cameras, list) or len(cameras) != 1 or not isinstance(cameras[0], Mapping):
        raise DatasetError(f"{path}: expected 'lines:' and 'zones:', or exactly one camera")
    try:
        places = LinesFile(
            TypeAdapter(List[LineSettings]).validate_python(cameras[0].get("lines", [])),
            TypeAdapter(List[ZoneSettings]).validate_python(cameras[0].get("zones", [])),
        )
    except ValidationError as error:
        raise DatasetError(f"{path}: {_first_mistake(error)}") from error
    if not places.lines and not places.zones:
        raise DatasetError(f"{path} has neither 'lines:' nor 'zones:': there is nothing to count")
    return places


def read_truth_file(path: Path) -> CountTruth:
    """Read what :func:`write_truth_file` wrote.

    Raises:
        DatasetError: The file cannot be read or is not such a file.
    """
    try:
        return CountTruth.model_validate(_load(path))
    except ValidationError as error:
        raise DatasetError(
            f"{path}: {_first_mistake(error)}; make it with 'edgecount eval make-truth'"
        ) from error


def write_truth_file(path: Path, truth: CountTruth) -> None:
    """Write a truth as YAML. Raises DatasetError where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_yaml(truth), encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error}") from error


def as_yaml(truth: CountTruth) -> str:
    """Write settings in blocks, and one line for each event and for each zone's occupancy."""
    data = truth.model_dump(mode="json", by_alias=True)
    events, occupancy = data.pop("events"), data.pop("occupancy")
    parts = [yaml.safe_dump(data, sort_keys=False, default_flow_style=None).rstrip()]
    parts.append("events:" if events else "events: []")
    parts += [f"- {_one_line(event)}" for event in events]
    parts.append("occupancy:" if occupancy else "occupancy: {}")
    parts += [f"  {name}: {_one_line(values)}" for name, values in occupancy.items()]
    return "\n".join(parts) + "\n"


def sequence_info(gt: Path) -> SequenceInfo:
    """What is known of the sequence that a ground-truth file belongs to.

    ``seqinfo.ini`` lies beside ``gt.txt``, or one folder up from ``gt/gt.txt``.

    Raises:
        DatasetError: ``seqinfo.ini`` is wrong.
    """
    nested = gt.parent.name == "gt" and not (gt.parent / "seqinfo.ini").is_file()
    folder = gt.parent.parent if nested else gt.parent
    return read_info(folder)


def _one_line(data: Any) -> str:
    text: str = yaml.safe_dump(data, default_flow_style=True, sort_keys=False, width=10**9)
    return text.strip()


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, Mapping):
        raise DatasetError(f"{path} holds no mapping of keys to values")
    return data


def _first_mistake(error: ValidationError) -> str:
    mistake = error.errors(include_url=False)[0]
    at = ".".join(str(part) for part in mistake["loc"])
    return f"{at}: {mistake['msg']}"


def _event(event: CountEvent, fps: float) -> TruthEvent:
    return TruthEvent.model_validate(
        {
            "kind": event.kind,
            "name": event.name,
            "direction": event.direction,
            "frame": ceil(event.ts * fps - 1e-6) + 1,
            "person": event.track,
        }
    )


def _order(event: TruthEvent) -> Tuple[int, str, str, int]:
    return event.frame, event.name, event.direction, event.person


def _filled(rows: Rows, piece: IndexArray, track: int) -> Rows:
    frames = rows.frames[piece]
    every = np.arange(frames[0], frames[-1] + 1, dtype=np.int32)
    boxes = np.stack([np.interp(every, frames, rows.boxes[piece, c]) for c in range(4)], axis=1)
    return Rows(
        every,
        np.full(len(every), track, np.int64),
        boxes.astype(np.float32),
        np.ones(len(every), np.float32),
    )


def _confirmed(rows: Rows, span: slice, ended: Sequence[int]) -> Tracks:
    n = span.stop - span.start
    return Tracks(
        rows.ids[span],
        rows.boxes[span],
        rows.scores[span],
        np.zeros(n, np.int32),
        np.ones(n, np.bool_),
        np.array(ended, np.int64),
    )
