"""The cameras: can each be opened, what does it send, and how fast."""

import threading
import time
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from edgecount.capture._select import open_source
from edgecount.capture.base import Source
from edgecount.config import CameraSettings
from edgecount.errors import EdgecountError
from edgecount.runtime.sight import Sight
from edgecount.toolchain.doctor.finding import Finding

_LOOK_S = 3.0
_LIMIT_S = 30.0
_TOLERANCE = 0.96


class _Look:
    """Looks at one camera on a thread of its own: cameras are slow, and some hang."""

    def __init__(self, settings: CameraSettings, sight: Optional[Sight]) -> None:
        self._settings = settings
        self._sight = sight
        self.finding: Optional[Finding] = None
        self.thread = threading.Thread(target=self._run, name=f"look-{settings.name}", daemon=True)

    def _run(self) -> None:
        self.finding = look(self._settings, self._sight)


def examine(cameras: List[CameraSettings], sight: Optional[Sight] = None) -> Iterator[Finding]:
    """Look at all cameras at once; takes 30 seconds at most.

    Args:
        cameras: Their settings.
        sight: What the model sees reliably; None where that is not known.
    """
    looks = [_Look(settings, sight) for settings in cameras]
    for one in looks:
        one.thread.start()
    end = time.monotonic() + _LIMIT_S
    for settings, one in zip(cameras, looks):
        one.thread.join(max(0.0, end - time.monotonic()))
        yield one.finding or Finding(
            f"camera {settings.name}",
            "fail",
            f"it does not answer within {_LIMIT_S:.0f} s",
            "look at the camera's power and network; for USB, at dmesg",
        )


def look(settings: CameraSettings, sight: Optional[Sight] = None) -> Finding:
    """Open a camera, measure its rate over a few seconds, and judge the size of its heads."""
    check = f"camera {settings.name}"
    try:
        source = open_source(settings.name, settings.source, settings.capture)
        begun = time.monotonic()
        source.open()
        opened_s = time.monotonic() - begun
        try:
            frames, seconds, size = _watch(source)
        finally:
            source.close()
    except EdgecountError as error:
        return Finding(check, "fail", str(error), "correct the camera's source, or the camera")
    if frames == 0:
        return Finding(check, "fail", f"{source.label} opens, but sends no picture")
    shown = (
        f"{source.label}: {size[0]}×{size[1]}{_codec(settings.source)}, opened in {opened_s:.1f} s"
    )
    finding = _judge_rate(check, shown, settings, source, frames / seconds)
    heads = sight.warnings(settings, size) if sight is not None else []
    return _with_heads(finding, heads)


def _with_heads(finding: Finding, heads: List[str]) -> Finding:
    """The finding, and what is wrong with the size of the heads; more of what is wrong before."""
    if not heads:
        return finding
    detail = "; ".join([finding.detail, *heads])
    remedy = finding.remedy or "change the camera's tiles or the model's input as named"
    return Finding(finding.check, "warn", detail, remedy)


def _judge_rate(
    check: str, shown: str, settings: CameraSettings, source: Source, fps: float
) -> Finding:
    if not source.live:
        return Finding(check, "ok", f"{shown}, decodes {fps:.0f} FPS")
    wanted = min(settings.fps, settings.max_fps or settings.fps)
    detail = f"{shown}, sends {fps:.1f} FPS"
    if fps < _TOLERANCE * wanted:
        remedy = (
            f"raise the camera's frame rate to {wanted:g}, or set the camera's fps to {fps:.0f}"
        )
        return Finding(check, "warn", f"{detail}; {wanted:g} are wanted", remedy)
    return Finding(check, "ok", detail)


def _watch(source: Source) -> Tuple[int, float, Tuple[int, int]]:
    """Frames after the first, the seconds they took, and the size of the first."""
    first = source.read()
    if first is None:
        return 0, 1.0, (0, 0)
    frames, begun = 0, time.monotonic()
    while time.monotonic() - begun < _LOOK_S:
        if source.read() is None:
            break
        frames += 1
    seconds = max(1e-6, time.monotonic() - begun)
    return max(frames, 1), seconds, (first.info.width, first.info.height)


def _codec(source: str) -> str:
    """The codec of a file or network stream, where FFmpeg tells it."""
    if not (source.startswith(("rtsp://", "rtsps://")) or Path(source).is_file()):
        return ""
    import cv2

    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 3000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 3000]
    capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
    try:
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
    finally:
        capture.release()
    name = code.to_bytes(4, "little", signed=False).decode("ascii", "replace").strip("\0 ")
    return f" {name}" if name else ""
