"""RTSP cameras, decoded in software by FFmpeg through OpenCV.

Measured against gst-rtsp-server (OpenCV 5.0.0, FFmpeg 62.28, x86-64, 2026-11-24): with
FFmpeg's defaults opening takes 2.0 s and hands out a backlog of more than 1.5 s of old
frames first. ``nobuffer`` drops the backlog, and half a second of analysis opens in 0.7 s.
"""

from typing import Dict, List, Optional

import cv2
from pydantic import Field
from typing_extensions import Annotated, Literal

from edgecount.capture._clock import Clock
from edgecount.capture._environment import FFMPEG_OPTIONS, prepare_opencv
from edgecount.capture._live import LiveCapture, decoder_threads
from edgecount.capture._rtsp_probe import Cause, Finding, knock, parse, probe
from edgecount.config import Strict
from edgecount.errors import ConfigError, SourceError
from edgecount.redact import mask_url

# Cameras lock a user out after some wrong passwords; half a minute apart they do not.
_LOGIN_RETRY_S = 30.0
_PROBE_S = 2.0
_REMEDIES = {
    Cause.BAD_URL: "the URL is malformed",
    Cause.UNKNOWN_HOST: "the host's name is not known: check its spelling and the DNS",
    Cause.REFUSED: "nothing listens on its port: check the port, and that RTSP is switched on",
    Cause.UNREACHABLE: "the host cannot be reached: check its address and the network",
    Cause.SILENT: "no answer: the camera is off, hangs, or a firewall swallows the packets",
    Cause.NOT_RTSP: "what listens on its port does not speak RTSP: check the port",
    Cause.LOGIN_NEEDED: "the camera asks for a login: write rtsp://user:password@host/…",
    Cause.LOGIN_REFUSED: "the user or password was refused (401): check both",
    Cause.NOT_FOUND: "the camera has no stream at this path (404): check the path",
    Cause.OTHER: "the camera refused; it is busy, or does not serve this transport: "
    "try 'transport: udp' or 'transport: tcp'",
}


class Options(Strict):
    """Options of an RTSP source."""

    transport: Literal["tcp", "udp"] = Field(
        "tcp", description="tcp loses nothing; udp is for networks that block or stall TCP."
    )
    open_timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = Field(
        3.0, description="How long the camera may take to answer, seconds."
    )
    read_timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = Field(
        2.0, description="How long a picture may stay away before the stream is lost, seconds."
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Threads of the decoder; each one more than 1 delays by a frame."
    )
    analyze_s: Annotated[float, Field(gt=0.0, le=30.0)] = Field(
        0.5, description="How long the stream is looked at for its format, seconds."
    )
    ffmpeg: Dict[str, str] = Field(
        default_factory=dict, description="Further options of FFmpeg's RTSP demuxer, by name."
    )


def claims(source: str) -> bool:
    """``rtsp://`` and ``rtsps://`` URLs."""
    return source.lower().startswith(("rtsp://", "rtsps://"))


def create(
    camera: str,
    source: str,
    options: Options,
    *,
    clock: Clock,
    max_fps: Optional[float] = None,
) -> LiveCapture:
    """A source that reads the RTSP stream at the URL ``source``."""
    label = mask_url(source)
    if parse(source) is None:
        raise ConfigError(
            f"{label!r} is no RTSP URL: write rtsp://user:password@host:port/path, with "
            "'/', '?' and '#' in the password percent-encoded (%2F, %3F, %23)"
        )
    lost = (
        f"the stream broke off, or no picture came for {options.read_timeout_s:g} s; "
        "connecting again"
    )
    return LiveCapture(
        camera,
        label,
        _Connector(source, options).connect,
        lost,
        # A little less than FFmpeg's time-out, which is not exact.
        silence_s=options.read_timeout_s - min(0.1, options.read_timeout_s / 2),
        clock=clock,
        max_fps=max_fps,
    )


class _Connector:
    """Opens one RTSP stream, and finds out why where it cannot be opened."""

    def __init__(self, url: str, options: Options) -> None:
        self._url = url
        self._options = options
        # Some cameras name their picture's size only in a key frame, seconds apart.
        self._patient = False

    def connect(self) -> cv2.VideoCapture:
        """The opened stream. Raises SourceError.

        The camera is asked for a sign of life before FFmpeg is: OpenCV opens one stream at
        a time in the whole process, so a camera that is away would hold up all others by
        its time-out.
        """
        knock_first(self._url, self._options.open_timeout_s)
        prepare_opencv()
        with FFMPEG_OPTIONS.holding(self._ffmpeg_options()):
            capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, self._parameters())
        if capture.isOpened():
            return capture
        reason = refusal(self._url, self._options.open_timeout_s)
        self._patient = reason is None
        raise reason or SourceError(
            f"cannot open {mask_url(self._url)}: the camera describes it, but no picture came "
            f"over {self._options.transport}: try 'transport: {self._other_transport()}', "
            "and whether the camera sends H.264 or H.265"
        )

    def _other_transport(self) -> str:
        return "udp" if self._options.transport == "tcp" else "tcp"

    def _ffmpeg_options(self) -> str:
        options = {"rtsp_transport": self._options.transport, "fflags": "nobuffer"}
        if not self._patient:
            options["analyzeduration"] = str(int(self._options.analyze_s * 1e6))
        options.update(self._options.ffmpeg)
        return "|".join(f"{name};{value}" for name, value in options.items())

    def _parameters(self) -> List[int]:
        return [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            int(self._options.open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            int(self._options.read_timeout_s * 1000),
            *decoder_threads(self._options.threads),
        ]


def knock_first(url: str, timeout: float) -> None:
    """Make sure that an RTSP server answers at ``url``.

    Args:
        url: RTSP URL, with its login.
        timeout: How long the server may take, seconds; at most 2 are given.

    Raises:
        SourceError: None answers; the message says why, and what to do.
    """
    finding = knock(url, min(_PROBE_S, timeout))
    if finding.cause is not Cause.NONE:
        raise _error(url, finding)


def refusal(url: str, timeout: float) -> Optional[SourceError]:
    """Ask the server why it does not give the stream at ``url``.

    Args:
        url: RTSP URL, with its login.
        timeout: How long the server may take for an answer, seconds; at most 2 are given.

    Returns:
        The error to raise, or None where the server describes the stream.
    """
    finding = probe(url, min(_PROBE_S, timeout))
    return None if finding.cause is Cause.NONE else _error(url, finding)


def _error(url: str, finding: Finding) -> SourceError:
    detail = f" ({finding.detail})" if finding.detail else ""
    login = finding.cause in (Cause.LOGIN_NEEDED, Cause.LOGIN_REFUSED)
    return SourceError(
        f"cannot open {mask_url(url)}: {_REMEDIES[finding.cause]}{detail}",
        retry_after=_LOGIN_RETRY_S if login else 0.0,
    )
