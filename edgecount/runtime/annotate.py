"""Draw what was seen and counted into the picture: a video, or one PNG."""

import threading
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Tuple

import cv2
import numpy as np

from edgecount.config import CameraSettings, LineSettings, ZoneSettings
from edgecount.errors import ConfigError, EdgecountError
from edgecount.records import (
    Float32Array,
    Frame,
    LineTotals,
    Tracked,
    Tracks,
    UInt8Array,
    ZoneState,
)
from edgecount.runtime.pipeline import Lane

Color = Tuple[int, int, int]
_VIDEO = (".mp4", ".avi", ".mkv")
_PICTURE = (".png", ".jpg", ".jpeg")
_FONT = cv2.FONT_HERSHEY_DUPLEX
# BGR; told apart by people with any of the usual colour deficiencies (Okabe and Ito 2008).
_HEAD: Color = (115, 158, 0)
_TENTATIVE: Color = (160, 160, 160)
_LINE: Color = (0, 94, 213)
_ZONE: Color = (178, 114, 0)
_INK: Color = (255, 255, 255)
_TRAIL = 24


class Annotator:
    """Writes an annotated video, or the fullest frame as a picture.

    Used from one thread.
    """

    def __init__(
        self, path: Path, lines: Sequence[LineSettings], zones: Sequence[ZoneSettings], fps: float
    ) -> None:
        """Prepare to write ``path``; its ending chooses the kind.

        Raises:
            ConfigError: The ending is none of the known ones, or the folder does not exist.
        """
        if path.suffix.lower() not in _VIDEO + _PICTURE:
            known = ", ".join(_VIDEO + _PICTURE)
            raise ConfigError(f"cannot annotate into {path}: its ending must be one of {known}")
        if not path.parent.is_dir():
            raise ConfigError(f"cannot annotate into {path}: {path.parent} is no folder; create it")
        self._path = path
        self._scene = _Scene(lines, zones)
        self._fps = fps
        self._writer: Optional[cv2.VideoWriter] = None
        self._fullest: Tuple[int, Optional[UInt8Array]] = (-1, None)

    def add(
        self,
        image: UInt8Array,
        tracks: Tracks,
        lines: Mapping[str, LineTotals],
        zones: Mapping[str, ZoneState],
    ) -> None:
        """Draw one frame; ``image`` is not changed.

        Raises:
            EdgecountError: The video cannot be written.
        """
        visible = int(tracks.confirmed.sum())
        is_video = self._path.suffix.lower() in _VIDEO
        if not is_video and visible <= self._fullest[0]:
            self._scene.follow(tracks)
            return
        drawn = self._scene.draw(image.copy(), tracks, lines, zones)
        if is_video:
            self._write(drawn)
        else:
            self._fullest = (visible, drawn)

    def close(self) -> None:
        """Finish the file.

        Raises:
            EdgecountError: It cannot be written.
        """
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        picture = self._fullest[1]
        if picture is not None and not cv2.imwrite(str(self._path), picture):
            raise EdgecountError(f"cannot write the picture {self._path}: is the folder writable?")

    def _write(self, drawn: UInt8Array) -> None:
        if self._writer is None:
            height, width = drawn.shape[:2]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._fps, (width, height))
            if not self._writer.isOpened():
                raise EdgecountError(
                    f"cannot write the video {self._path}: is the folder writable, and does this "
                    "OpenCV have FFmpeg?"
                )
        self._writer.write(drawn)


class _Scene:
    """Draws one camera's lines, zones, heads and the trails behind them."""

    def __init__(self, lines: Sequence[LineSettings], zones: Sequence[ZoneSettings]) -> None:
        self._lines = lines
        self._zones = zones
        self._trails: Dict[int, Float32Array] = {}

    def follow(self, tracks: Tracks) -> None:
        """Lengthen the trails of the tracks that are there, and forget the others."""
        centers = (tracks.boxes[:, :2] + tracks.boxes[:, 2:]) / 2
        trails = {}
        for identity, center in zip(tracks.ids.tolist(), centers):
            trail = self._trails.get(identity, center[None])
            trails[identity] = np.concatenate([trail[-_TRAIL:], center[None]])
        self._trails = trails

    def draw(
        self,
        image: UInt8Array,
        tracks: Tracks,
        lines: Mapping[str, LineTotals],
        zones: Mapping[str, ZoneState],
    ) -> UInt8Array:
        self.follow(tracks)
        scale = max(0.4, image.shape[0] / 1080)
        for zone in self._zones:
            self._zone(image, zone, zones.get(zone.name, ZoneState()), scale)
        for line in self._lines:
            self._line(image, line, lines.get(line.name, LineTotals()), scale)
        self._heads(image, tracks, scale)
        return image

    def _heads(self, image: UInt8Array, tracks: Tracks, scale: float) -> None:
        thick = max(1, round(2 * scale))
        for identity, box, confirmed in zip(
            tracks.ids.tolist(), tracks.boxes.round().astype(int).tolist(), tracks.confirmed
        ):
            color = _HEAD if confirmed else _TENTATIVE
            trail = self._trails[identity].round().astype(np.int32)
            cv2.polylines(image, [trail], False, color, thick, cv2.LINE_AA)
            cv2.rectangle(image, box[:2], box[2:], color, thick, cv2.LINE_AA)
            if confirmed:
                _label(image, str(identity), (box[0], box[1]), color, scale)

    def _line(
        self, image: UInt8Array, line: LineSettings, totals: LineTotals, scale: float
    ) -> None:
        size = np.array([image.shape[1], image.shape[0]])
        start, end = np.array(line.start) * size, np.array(line.end) * size
        thick = max(2, round(3 * scale))
        cv2.line(image, _point(start), _point(end), _LINE, thick, cv2.LINE_AA)
        # Left of the way from start to end is "out", right of it is "in": point to "in".
        along = (end - start) / max(float(np.hypot(*(end - start))), 1e-6)
        middle, right = (start + end) / 2, np.array([-along[1], along[0]])
        tip = middle + right * 40 * scale
        cv2.arrowedLine(image, _point(middle), _point(tip), _LINE, thick, cv2.LINE_AA, 0, 0.35)
        text = f"{line.name}  in {totals.into}  out {totals.out}"
        _label(image, text, _point(tip + np.array([8 * scale, 0.0])), _LINE, 1.3 * scale)

    def _zone(self, image: UInt8Array, zone: ZoneSettings, state: ZoneState, scale: float) -> None:
        size = np.array([image.shape[1] - 1, image.shape[0] - 1])
        corners = (np.array(zone.polygon) * size).round().astype(np.int32)
        cv2.polylines(image, [corners], True, _ZONE, max(2, round(2 * scale)), cv2.LINE_AA)
        top = corners[corners[:, 1].argmin()]
        text = f"{zone.name}  now {state.now}  entered {state.entered}  left {state.left}"
        _label(image, text, (int(top[0]), int(top[1])), _ZONE, 1.3 * scale)


def _label(image: UInt8Array, text: str, at: Tuple[int, int], color: Color, scale: float) -> None:
    """Write on a filled box that stays within the picture; ``at`` is its bottom left."""
    size = 0.5 * max(scale, 0.7)
    (width, height), below = cv2.getTextSize(text, _FONT, size, 1)
    pad = max(2, height // 3)
    full_width, full_height = width + 2 * pad, height + below + 2 * pad
    x = int(min(max(at[0], 0), max(image.shape[1] - full_width, 0)))
    y = int(min(max(at[1] - full_height, 0), max(image.shape[0] - full_height, 0)))
    cv2.rectangle(image, (x, y), (x + full_width, y + full_height), color, cv2.FILLED)
    cv2.putText(image, text, (x + pad, y + pad + height), _FONT, size, _INK, 1, cv2.LINE_AA)


def _point(xy: "np.ndarray[Tuple[int], np.dtype[np.float64]]") -> Tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))


class AnnotatingWatcher:
    """Keeps the pictures under way and hands them to the annotator with their tracks."""

    def __init__(self, path: Path, camera: CameraSettings, fps: float) -> None:
        """Annotate one camera into ``path``; ``fps`` is the video's rate. Raises ConfigError."""
        self._annotator = Annotator(path, camera.lines, camera.zones, fps)
        self._camera = camera.name
        self._under_way: Dict[int, UInt8Array] = {}
        self._lock = threading.Lock()

    def submitted(self, frame: Frame) -> None:
        if frame.info.camera == self._camera:
            with self._lock:
                self._under_way[frame.info.index] = frame.image

    def counted(self, tracked: Tracked, latency_s: float, lane: Lane) -> None:  # noqa: ARG002
        if tracked.info.camera != self._camera:
            return
        with self._lock:
            image = self._under_way.pop(tracked.info.index)
            # Frames whose batch failed never come back.
            self._under_way = {i: x for i, x in self._under_way.items() if i > tracked.info.index}
        lines, zones, _ = lane.totals()
        self._annotator.add(image, tracked.tracks, lines, zones)

    def close(self) -> None:
        """Finish the file. Raises EdgecountError when it cannot be written."""
        self._annotator.close()
