"""Files and RTSP streams, decoded by the GPU's video engine; pictures stay in its memory.

Needs PyNvVideoCodec. Chosen with ``capture: {kind: nvdec}`` only, since a backend on the
CPU would have to fetch every picture back. A picture is valid as long as its frame is:
see ``_surfaces``.
"""

import contextlib
import importlib
import threading
from pathlib import Path
from typing import Any, Iterator, NoReturn, Optional, Tuple

from pydantic import Field
from typing_extensions import Annotated

from edgecount.capture import rtsp
from edgecount.capture._clock import Clock
from edgecount.capture._decimate import Decimator
from edgecount.capture._guard import GuardedCapture
from edgecount.capture._live import plausible_fps
from edgecount.capture._playback import FILE_SCHEME, Playback, path_of
from edgecount.capture._surfaces import Planes, SurfacePool, download
from edgecount.errors import SourceError
from edgecount.records import DeviceFrame, FrameInfo, Surface
from edgecount.redact import mask_url

_MODULE = "PyNvVideoCodec"
_USUAL_FPS = 25.0


class Options(Playback):
    """Options of an NVDEC source."""

    device: Annotated[int, Field(ge=0, le=63)] = Field(0, description="Number of the GPU.")
    open_timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = Field(
        5.0, description="How long a stream may take to connect, seconds."
    )
    read_timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = Field(
        3.0, description="How long a picture may stay away before a stream is lost, seconds."
    )


def claims(source: str) -> bool:  # noqa: ARG001 - a protocol
    """Nothing: it is chosen by its kind."""
    return False


def create(
    camera: str,
    source: str,
    options: Options,
    *,
    clock: Clock,
    max_fps: Optional[float] = None,
) -> "NvdecSource":
    """A source that decodes the file or RTSP stream named ``source`` on the GPU."""
    return NvdecSource(camera, source, options, clock=clock, max_fps=max_fps)


class NvdecSource:
    """Reads a video file or an RTSP stream; its frames are :class:`DeviceFrame`."""

    def __init__(
        self,
        camera: str,
        source: str,
        options: Options,
        *,
        clock: Clock,
        max_fps: Optional[float] = None,
    ) -> None:
        self.label = mask_url(source)
        self.live = "://" in source and not source.startswith(FILE_SCHEME)
        self.fps: Optional[float] = options.fps
        self._camera = camera
        self._source = path_of(source)
        self._options = options
        self._clock = clock
        self._decimator = Decimator(max_fps)
        self._interrupted = threading.Event()
        self._stream: Optional[_Stream] = None
        self._guarded: Optional[_Guarded] = None
        self._index = 0
        self._start: Tuple[float, float] = (0.0, 0.0)  # wall clock, monotonic

    @property
    def skipped(self) -> int:
        """Frames that ``max_fps`` left out so far."""
        return self._decimator.left_out

    def open(self) -> None:
        """Connect. Raises SourceError."""
        self.close()
        self._interrupted.clear()
        self._check_source()
        stream = _Stream(_codec(), self._source, self.label, self._options.device)
        if self.live:
            self._guarded = guarded = _Guarded(stream, self._options)
            guarded.check_opened()
        else:
            _open_or_let_go(stream)
        self._stream = stream
        self.fps = self._options.fps or stream.fps or _USUAL_FPS
        self._decimator.reset()
        if not self.live:
            self._index = 0
        self._start = self._clock.wall(), self._clock.monotonic()

    def read(self) -> Optional[DeviceFrame]:
        """The next frame, or None at a file's end and after ``interrupt``. Raises SourceError."""
        if self._stream is None:
            raise SourceError(
                f"{self.label} is not open: call open() before read()", retry=self.live
            )
        while self._grab(self._stream):
            time = self._time_of(self._index)
            index = self._index
            self._index += 1
            if self._decimator.keep(time):
                if not self._due(time):
                    return None
                return self._frame(self._stream, index, time)
        return None

    def interrupt(self) -> None:
        """End a wait for the next frame's time."""
        self._interrupted.set()

    def close(self) -> None:
        """Let go of the decoder."""
        guarded, self._guarded = self._guarded, None
        stream, self._stream = self._stream, None
        if guarded is not None:
            guarded.release()
        elif stream is not None:
            stream.release()

    def _check_source(self) -> None:
        if not self.live and not Path(self._source).is_file():
            raise SourceError(f"{self.label}: there is no such file", retry=False)
        if rtsp.claims(self._source):
            rtsp.knock_first(self._source, self._options.open_timeout_s)

    def _grab(self, stream: "_Stream") -> bool:
        """Decode the next picture; false at the end of a file."""
        if self._guarded is not None:
            self._guarded.check_grabbed()
            return True
        if stream.grab():
            return True
        if not self._options.loop or self._interrupted.is_set():
            return False
        stream.open()
        return stream.grab()

    def _time_of(self, index: int) -> float:
        assert self.fps is not None
        return self._clock.monotonic() if self.live else index / self.fps

    def _due(self, time: float) -> bool:
        """Wait for a file's frame in real time; false where the wait was interrupted."""
        if self.live or not self._options.realtime:
            return True
        wait = self._start[1] + time - self._clock.monotonic()
        return not (wait > 0 and self._interrupted.wait(wait))

    def _frame(self, stream: "_Stream", index: int, time: float) -> DeviceFrame:
        width, height, surface = stream.surface()
        ts = self._clock.wall() if self.live else self._start[0] + time
        info = FrameInfo(self._camera, index, ts, time, width, height)
        return DeviceFrame(info, surface, download)


class _Stream:
    """Demultiplexer and decoder."""

    def __init__(self, codec: Any, source: str, label: str, device: int) -> None:
        self.fps: Optional[float] = None
        self.label = label
        self._codec, self._source, self._device = codec, source, device
        self._pool: Optional[SurfacePool] = None
        self._frames: Iterator[Any] = iter(())
        self._frame: Any = None

    def open(self) -> None:
        """Open it, at its beginning. Raises SourceError."""
        pool = self._pool = self._pool or SurfacePool(self._device)
        self._frame = None
        with self._translating():
            demuxer = self._codec.CreateDemuxer(filename=self._source)
            decoder = self._codec.CreateDecoder(
                gpuid=self._device,
                codec=demuxer.GetNvCodecId(),
                cudacontext=pool.context,
                cudastream=pool.stream,
                usedevicememory=True,
            )
            self.fps = plausible_fps(float(demuxer.FrameRate()))
        self._frames = _decoded(demuxer, decoder)

    def grab(self) -> bool:
        """Decode the next picture; false where there is none. Raises SourceError."""
        self._frame = None  # its surface may be used again
        with self._translating():
            self._frame = next(self._frames, None)
        return self._frame is not None

    def surface(self) -> Tuple[int, int, Surface]:
        """Width, height and place of the picture. Raises SourceError."""
        assert self._pool is not None
        planes = [plane.__cuda_array_interface__ for plane in self._frame.cuda()]
        if len(planes) != 2 or planes[0]["typestr"] != "|u1":
            raise SourceError(
                f"{self.label}: its pictures are not 8-bit 4:2:0 (NV12); use kind 'file' or "
                "'rtsp', or let the camera send H.264 or H.265 in 8 bits",
                retry=False,
            )
        height, width = planes[0]["shape"][:2]
        luma, chroma = (int(plane["data"][0]) for plane in planes)
        pitch = int(planes[0]["strides"][0])
        surface = self._pool.copy(Planes(luma, chroma, pitch, int(height)))
        return int(width), int(height), surface

    def release(self) -> None:
        """Let go of everything."""
        self._frame = None
        self._frames = iter(())
        if self._pool is not None:
            self._pool.close()

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """PyNvVideoCodec's own exceptions become ours."""
        try:
            yield
        except SourceError:
            raise
        except Exception as error:  # they share no base class but Exception
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SourceError(
                f"{self.label}: the GPU's video decoder failed: {mask_url(text)}"
            ) from error


class _Guarded:
    """A stream in a thread of its own, left behind when it hangs: FFmpeg waits for ever."""

    def __init__(self, stream: _Stream, options: Options) -> None:
        self._options = options
        self._quiet = quiet = _Quiet(stream)
        self._capture = GuardedCapture(
            lambda: quiet,  # type: ignore[arg-type, return-value]
            open_s=options.open_timeout_s,
            grab_s=options.read_timeout_s,
        )

    def check_opened(self) -> None:
        """Raise SourceError where it was not opened in time."""
        if not self._capture.isOpened():
            self._fail(f"no answer within {self._options.open_timeout_s:g} s")

    def check_grabbed(self) -> None:
        """Decode the next picture. Raises SourceError where none comes in time."""
        if not self._capture.grab():
            self._fail(
                f"the stream ended, or gave no picture for {self._options.read_timeout_s:g} s"
            )

    def release(self) -> None:
        """Let go of the stream, in its thread; does not wait for one that hangs."""
        self._capture.release()

    def _fail(self, why: str) -> NoReturn:
        raise self._quiet.error or SourceError(f"{self._quiet.label}: {why}")


class _Quiet:
    """A stream that keeps its error and returns false, as ``cv2.VideoCapture`` does."""

    def __init__(self, stream: _Stream) -> None:
        self.label = stream.label
        self.error: Optional[SourceError] = None
        self._stream = stream

    def isOpened(self) -> bool:  # noqa: N802 - as cv2 calls it
        try:
            self._stream.open()
        except SourceError as error:
            self.error = error
            return False
        return True

    def grab(self) -> bool:
        try:
            return self._stream.grab()
        except SourceError as error:
            self.error = error
            return False

    def release(self) -> None:
        self._stream.release()


def _open_or_let_go(stream: _Stream) -> None:
    try:
        stream.open()
    except SourceError:
        stream.release()
        raise


def _decoded(demuxer: Any, decoder: Any) -> Iterator[Any]:
    for packet in demuxer:
        yield from decoder.Decode(packet)


def _codec() -> Any:
    try:
        return importlib.import_module(_MODULE)
    except Exception as error:  # it raises RuntimeError where the driver lacks video
        raise SourceError(
            f"NVDEC needs the package {_MODULE} and the driver's video libraries: pip install "
            f"{_MODULE}, in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility,video "
            f"({(str(error).splitlines() or [''])[0]})",
            retry=False,
        ) from error
