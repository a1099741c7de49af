"""GStreamer pipelines: hardware decoding on a Jetson, and whatever else GStreamer reads.

Needs an OpenCV that was built with GStreamer: JetPack's and Debian's ``python3-opencv``
are, the wheels from PyPI are not.

A source is ``gst:`` and a pipeline that ends in an ``appsink``, or, with
``kind: gstreamer``, an RTSP URL or USB camera that one of the builders below makes a
pipeline for.
"""

import re
from typing import Optional

import cv2
from pydantic import Field
from typing_extensions import Annotated, Literal

from edgecount.capture import rtsp, usb
from edgecount.capture._clock import Clock
from edgecount.capture._environment import prepare_opencv
from edgecount.capture._guard import GuardedCapture
from edgecount.capture._live import LiveCapture
from edgecount.config import Strict
from edgecount.errors import ConfigError, SourceError
from edgecount.redact import MASK, mask_url

_PREFIX = "gst:"
Codec = Literal["h264", "h265", "mjpeg"]
Decoder = Literal["jetson", "software"]

# One frame, the newest, without waiting for its presentation time.
_SINK = "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
# Microseconds that rtspsrc waits for an answer; its default is 20 s.
_CONNECT_US = 3_000_000
# The decoder writes to NVMM memory; nvvidconv is the way out of it, and cannot make BGR.
_FROM_NVMM = "nvvidconv ! video/x-raw,format=BGRx ! videoconvert"


class Options(Strict):
    """Options of a GStreamer source; all but the time-outs are for built pipelines."""

    decoder: Decoder = Field(
        "jetson", description="jetson decodes in hardware; software runs anywhere."
    )
    codec: Codec = Field(
        "h264", description="What the camera sends: h264, h265; for USB mjpeg, else raw."
    )
    latency_ms: Annotated[int, Field(ge=0, le=10_000)] = Field(
        100, description="Jitter buffer of an RTSP stream, milliseconds."
    )
    transport: Literal["tcp", "udp"] = Field("tcp", description="Transport of an RTSP stream.")
    width: Optional[Annotated[int, Field(ge=16, le=16384)]] = Field(
        None, description="Width of a USB camera's picture, pixels."
    )
    height: Optional[Annotated[int, Field(ge=16, le=16384)]] = Field(
        None, description="Height of a USB camera's picture, pixels."
    )
    fps: Optional[Annotated[int, Field(ge=1, le=1000)]] = Field(
        None, description="Frames per second of a USB camera."
    )
    open_timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = Field(
        5.0, description="How long the pipeline may take to start, seconds."
    )
    read_timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = Field(
        3.0, description="How long a picture may stay away before the stream is lost, seconds."
    )


def claims(source: str) -> bool:
    """``gst:<pipeline>``."""
    return source.startswith(_PREFIX)


def create(
    camera: str,
    source: str,
    options: Options,
    *,
    clock: Clock,
    max_fps: Optional[float] = None,
) -> LiveCapture:
    """A source that runs the pipeline in ``source``, or one built for the camera it names."""
    pipeline = pipeline_for(source, options)
    label = _masked(source)

    connector = _Connector(source, pipeline, options)
    lost = f"the pipeline ended, failed, or gave no picture for {options.read_timeout_s:g} s"
    return LiveCapture(camera, label, connector.connect, lost, clock=clock, max_fps=max_fps)


def pipeline_for(source: str, options: Options) -> str:
    """The pipeline that a source string and its options stand for. Raises ConfigError."""
    if claims(source):
        return _checked(source[len(_PREFIX) :].strip())
    if rtsp.claims(source):
        return rtsp_pipeline(
            source,
            decoder=options.decoder,
            codec=options.codec,
            latency_ms=options.latency_ms,
            transport=options.transport,
        )
    if usb.claims(source):
        return usb_pipeline(
            str(usb.device_of(source)),
            decoder=options.decoder,
            mjpeg=options.codec == "mjpeg",
            width=options.width,
            height=options.height,
            fps=options.fps,
        )
    raise ConfigError(
        f"{_masked(source)!r} is nothing to build a GStreamer pipeline for: give "
        "gst:<pipeline>, an rtsp:// URL or usb:0"
    )


def rtsp_pipeline(
    url: str,
    *,
    decoder: Decoder = "jetson",
    codec: Codec = "h264",
    latency_ms: int = 100,
    transport: str = "tcp",
) -> str:
    """A pipeline that decodes an RTSP stream, the newest frame only.

    Args:
        url: RTSP URL, with its login.
        decoder: ``jetson`` for nvv4l2decoder, ``software`` for libav.
        codec: ``h264``, ``h265`` or ``mjpeg``.
        latency_ms: Size of the jitter buffer, milliseconds.
        transport: ``tcp`` or ``udp``.
    """
    source = (
        f"rtspsrc location={quote(url)} latency={latency_ms} protocols={transport} "
        f"tcp-timeout={_CONNECT_US} timeout={_CONNECT_US}"
    )
    depay = "rtpjpegdepay" if codec == "mjpeg" else f"rtp{codec}depay ! {codec}parse"
    return f"{source} ! {depay} ! {_decode(decoder, codec)} ! {_SINK}"


def usb_pipeline(
    device: str,
    *,
    decoder: Decoder = "jetson",
    mjpeg: bool = False,
    width: Optional[int] = None,
    height: Optional[int] = None,
    fps: Optional[int] = None,
) -> str:
    """A pipeline that reads a V4L2 camera, the newest frame only.

    Args:
        device: Device file, e.g. ``/dev/video0``.
        decoder: ``jetson`` decodes MJPEG in hardware, ``software`` on the CPU.
        mjpeg: Whether the camera is to send MJPEG instead of raw pictures.
        width: Width of the picture, pixels; None leaves it to the camera.
        height: Height of the picture, pixels.
        fps: Frames per second.
    """
    caps = "image/jpeg" if mjpeg else "video/x-raw"
    if width is not None:
        caps += f",width={width}"
    if height is not None:
        caps += f",height={height}"
    if fps is not None:
        caps += f",framerate={fps}/1"
    convert = _decode(decoder, "mjpeg") if mjpeg else "videoconvert"
    return f"v4l2src device={quote(device)} ! {caps} ! {convert} ! {_SINK}"


def quote(value: str) -> str:
    """``value`` as a property value in a pipeline, whatever characters it holds."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _decode(decoder: Decoder, codec: Codec) -> str:
    if decoder == "jetson":
        jpeg = " mjpeg=1" if codec == "mjpeg" else ""
        return f"nvv4l2decoder enable-max-performance=1{jpeg} ! {_FROM_NVMM}"
    element = "jpegdec" if codec == "mjpeg" else f"avdec_{codec}"
    return f"{element} ! videoconvert"


def _masked(source: str) -> str:
    """The source without the passwords of its URLs and of rtspsrc's properties."""
    return re.sub(r"(user-pw\s*=\s*)(\"[^\"]*\"|\S+)", rf"\1{MASK}", mask_url(source))


def _checked(pipeline: str) -> str:
    if not re.search(r"!\s*appsink\b[^!]*$", pipeline):
        raise ConfigError(
            "a gst: pipeline ends in an appsink, for example "
            f"'gst:videotestsrc ! videoconvert ! {_SINK}'"
        )
    return pipeline


class _Connector:
    """Starts one pipeline, and finds out why where it cannot be started."""

    def __init__(self, source: str, pipeline: str, options: Options) -> None:
        self._source = source
        self._pipeline = pipeline
        self._options = options
        self._failed = False

    def connect(self) -> GuardedCapture:
        """The running pipeline. Raises SourceError."""
        prepare_opencv()
        self._check_opencv()
        if rtsp.claims(self._source):
            self._check_camera()
        capture = GuardedCapture(
            lambda: cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER),
            open_s=self._options.open_timeout_s,
            grab_s=self._options.read_timeout_s,
        )
        self._failed = not capture.isOpened()
        if self._failed:
            capture.release()
            raise self._explain()
        return capture

    def _check_opencv(self) -> None:
        if not has_gstreamer():
            raise SourceError(
                f"cannot open {_masked(self._source)}: this OpenCV ({cv2.__version__}) was built "
                "without GStreamer. Use the system's: apt install python3-opencv (JetPack has "
                "it), uninstall opencv-python-headless, and make the environment with "
                "--system-site-packages",
                retry=False,
            )

    def _check_camera(self) -> None:
        """Keep pipelines that cannot connect from being started at all.

        OpenCV 4.6 now and then hangs for ever in one, since it disposes of elements that
        still run. Asking for the stream, and not only for a sign of life, may disturb a
        server that starts streams on demand; so that is done after a failure only.
        """
        rtsp.knock_first(self._source, self._options.open_timeout_s)
        refusal = rtsp.refusal(self._source, self._options.open_timeout_s) if self._failed else None
        if refusal is not None:
            raise refusal

    def _explain(self) -> SourceError:
        refusal = None
        if rtsp.claims(self._source):
            refusal = rtsp.refusal(self._source, self._options.open_timeout_s)
        return refusal or SourceError(
            f"cannot open {_masked(self._source)}: GStreamer cannot start the pipeline, or it gave "
            f"no picture for {self._options.open_timeout_s:g} s. Try it with gst-launch-1.0, which "
            "says what is missing or fails (gst-inspect-1.0 nvv4l2decoder: is this a Jetson?)"
        )


def has_gstreamer() -> bool:
    """Whether this OpenCV can run GStreamer pipelines."""
    return cv2.CAP_GSTREAMER in cv2.videoio_registry.getBackends()
