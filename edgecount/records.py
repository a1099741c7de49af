"""The records that flow from stage to stage.

``Frame → Detections → Tracks → CountEvent / Snapshot``. Each is frozen; arrays
are shared, not copied, and must not be written to by a receiver. A stage knows
these records and nothing of its neighbours.

Conventions, everywhere: boxes are ``x1, y1, x2, y2`` in pixels of the source
frame, float32, half-open (``x2 - x1`` is the width); wall-clock times are UTC
seconds since 1970; stream times are monotonic seconds with an arbitrary origin.
"""

from dataclasses import dataclass, field
from typing import Callable, Dict, Mapping, Optional, Tuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Literal

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
UInt8Array = NDArray[np.uint8]

Stage = Literal[
    "capture",
    "queue",
    "preprocess",
    "infer",
    "post",
    "track",
    "count",
    "publish",
    "end_to_end",
]
# Told how long a stage took, seconds; called from the stage's thread.
StageTimer = Callable[[Stage, float], None]


@dataclass(frozen=True)
class FrameInfo:
    """What is known of a frame besides its pixels.

    Attributes:
        camera: Name of the camera.
        index: Number of the frame at its source, from 0; a dropped frame leaves a gap.
        ts: Wall-clock time of capture, UTC seconds since 1970.
        time: Stream time in seconds: ``index / fps`` for a file, a monotonic clock for
            a live camera. Differences of it drive the tracker and every time-out.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
    """

    camera: str
    index: int
    ts: float
    time: float
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """One picture. ``image`` is (height, width, 3) uint8, BGR."""

    info: FrameInfo
    image: UInt8Array


@dataclass(frozen=True)
class Surface:
    """An NV12 picture in the memory of a CUDA device, as a decoder leaves it there.

    Attributes:
        device: Number of the device.
        luma: Device address of the luma plane: (height, width) bytes.
        chroma: Device address of the interleaved U and V: (height / 2, width) bytes.
        pitch: Bytes from one row to the next, of both planes.
        owner: Whoever keeps the memory from being used for something else.
    """

    device: int
    luma: int
    chroma: int
    pitch: int
    owner: object


class DeviceFrame(Frame):
    """A picture on a CUDA device. ``image`` brings it to the host, which takes a millisecond.

    Who wants only an occasional picture may ask for ``image``; a backend on the same
    device takes ``surface``.
    """

    surface: Surface

    def __init__(
        self, info: FrameInfo, surface: Surface, download: Callable[[Surface, int, int], UInt8Array]
    ) -> None:
        """A frame whose ``image`` is made by ``download(surface, width, height)``."""
        object.__setattr__(self, "info", info)
        object.__setattr__(self, "surface", surface)
        object.__setattr__(self, "_download", download)

    @property
    def image(self) -> UInt8Array:
        """(height, width, 3) uint8, BGR; made anew at each call."""
        download: Callable[[Surface, int, int], UInt8Array] = self.__dict__["_download"]
        return download(self.surface, self.info.width, self.info.height)


@dataclass(frozen=True)
class Detections:
    """What the detector saw in one frame, best score first.

    Attributes:
        boxes: (N, 4) float32.
        scores: (N,) float32 in 0..1.
        classes: (N,) int32, indices into the model's class list.
    """

    boxes: Float32Array
    scores: Float32Array
    classes: Int32Array

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def empty() -> "Detections":
        """A frame in which nothing was seen."""
        return Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
        )


@dataclass(frozen=True)
class Tracks:
    """Who is where in one frame: the tracks that a detection was matched to, by rising id.

    A tracker may add confirmed tracks that this frame's detector missed, for a fraction of a
    second, where it expects them to be; their score is 0.

    Attributes:
        ids: (N,) int64, unique per tracker instance and never used again.
        boxes: (N, 4) float32, smoothed by the tracker's filter.
        scores: (N,) float32, score of the matched detection, 0 where there is none.
        classes: (N,) int32.
        confirmed: (N,) bool. A track is tentative in its first frames; counters follow
            tentative tracks but count nothing for them until they are confirmed.
        ended: (M,) int64, ids that died with this frame: per-track state can go.
    """

    ids: Int64Array
    boxes: Float32Array
    scores: Float32Array
    classes: Int32Array
    confirmed: BoolArray
    ended: Int64Array

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def empty() -> "Tracks":
        """A frame without tracks."""
        return Tracks(
            np.zeros(0, np.int64),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int32),
            np.zeros(0, np.bool_),
            np.zeros(0, np.int64),
        )


@dataclass(frozen=True)
class Tracked:
    """What a backend returns for a frame: its tracks, and the detections behind them.

    The detections of a device that tracks stay there, and none are here, unless the backend
    was asked for them (``BackendSpec.detections``).
    """

    info: FrameInfo
    tracks: Tracks
    detections: Detections


@dataclass(frozen=True)
class CountEvent:
    """Somebody crossed a line, or entered or left a zone.

    Counters leave ``id`` and ``seq`` empty; the ledger assigns them on commit.

    Attributes:
        kind: ``line`` or ``zone``.
        camera: Name of the camera.
        name: Name of the line or zone.
        direction: ``in`` or ``out`` for lines, ``entered`` or ``left`` for zones.
        track: The track's id; unique for this run of this camera only.
        frame: Index of the frame in which it became certain.
        ts: When it happened, UTC seconds since 1970.
        dwell_s: For ``left``: how long the track was in the zone, seconds; else 0.
        id: ULID, the same in every delivery of this event.
        seq: Rising number per device, from 1.
        recovered: True when delivered late, after an outage.
    """

    kind: str
    camera: str
    name: str
    direction: str
    track: int
    frame: int
    ts: float
    dwell_s: float = 0.0
    id: str = ""
    seq: int = 0
    recovered: bool = False


@dataclass(frozen=True)
class LineTotals:
    """Crossings of one line since ``Snapshot.since``. The keys on the wire are in/out."""

    into: int = 0
    out: int = 0


@dataclass(frozen=True)
class ZoneState:
    """One zone: heads in it now, entries and exits since ``Snapshot.since``, longest stay now.

    ``crowded`` says whether there are too many; None where the zone has no limit.
    """

    now: int = 0
    entered: int = 0
    left: int = 0
    max_dwell_s: float = 0.0
    crowded: Optional[bool] = None


@dataclass(frozen=True)
class Snapshot:
    """The state of one camera, as published and shown.

    Attributes:
        camera: Name of the camera.
        ts: Wall-clock time of the newest frame in it, UTC seconds since 1970.
        seq: Sequence number of the device when it was taken.
        visible: Confirmed heads in the newest frame.
        lines: Totals by line name.
        zones: State by zone name.
        fps: Frames counted per second over the last seconds.
        degraded: Why these numbers deserve less trust (``stale``, ``covered``, …); empty is good.
        since: When the totals were last reset, UTC seconds since 1970.
        confidence: Chance that of the last minute's crossings at most 5 %, or one where that
            is more, were miscounted; 0.95 and more is good.
    """

    camera: str
    ts: float
    seq: int
    visible: int
    lines: Mapping[str, LineTotals] = field(default_factory=dict)
    zones: Mapping[str, ZoneState] = field(default_factory=dict)
    fps: float = 0.0
    degraded: Tuple[str, ...] = ()
    since: float = 0.0
    confidence: float = 1.0

    def payload(self) -> Dict[str, object]:
        """The snapshot as the JSON object that goes over MQTT and HTTP (version 1)."""
        return {
            "v": 1,
            "ts": round(self.ts, 3),
            "seq": self.seq,
            "visible": self.visible,
            "lines": {k: {"in": t.into, "out": t.out} for k, t in self.lines.items()},
            "zones": {
                k: {
                    "now": z.now,
                    "entered": z.entered,
                    "left": z.left,
                    "max_dwell_s": round(z.max_dwell_s, 2),
                    **({} if z.crowded is None else {"crowded": z.crowded}),
                }
                for k, z in self.zones.items()
            },
            "fps": round(self.fps, 2),
            "degraded": list(self.degraded),
            "since": round(self.since, 3),
            "confidence": round(self.confidence, 3),
        }


@dataclass(frozen=True)
class Figures:
    """What one line, zone or place did in a period; ``peak`` and ``mean`` of heads or people."""

    into: int = 0
    out: int = 0
    peak: int = 0
    mean: float = 0.0


@dataclass(frozen=True)
class Aggregate:
    """A period that is over.

    Attributes:
        period: ``minute``, ``hour`` or ``day``.
        start: Its first second, UTC seconds since 1970.
        end: The first second after it.
        lines: By ``(camera, line)``.
        zones: By ``(camera, zone)``; ``into`` is entered, ``out`` is left.
        places: By place.
    """

    period: str
    start: float
    end: float
    lines: Mapping[Tuple[str, str], Figures]
    zones: Mapping[Tuple[str, str], Figures]
    places: Mapping[str, Figures]
