import ctypes
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, List, Optional

import numpy as np
import pytest
from support.host_driver import PRIMARY, STREAM, HostDriver

from edgecount.capture import nvdec
from edgecount.capture._clock import Clock
from edgecount.errors import SourceError
from edgecount.records import DeviceFrame

PITCH, ROWS = 64, 48


class Plane:
    def __init__(self, address: int, rows: int, width: int, last: int, typestr: str) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": (rows, width, last),
            "strides": (PITCH, last, 1),
            "typestr": typestr,
        }


class FakeCodec:
    """PyNvVideoCodec with a stream of ``frames`` pictures of 48×32."""

    def __init__(self) -> None:
        self.frames = 5
        self.opened = 0
        self.failure: Optional[Exception] = None
        self.hangs = threading.Event()
        self.typestr = "|u1"
        # A decoder has one surface, which it uses for every picture.
        self.surface = np.zeros((ROWS, PITCH), np.uint8)

    def CreateDemuxer(self, filename: str) -> Any:  # noqa: N802
        if self.failure is not None:
            raise self.failure
        self.opened += 1
        return self

    def GetNvCodecId(self) -> int:  # noqa: N802
        return 4

    def FrameRate(self) -> float:  # noqa: N802
        return 10.0

    def CreateDecoder(self, **options: Any) -> Any:  # noqa: N802
        assert options["usedevicememory"]
        assert (options["cudacontext"], options["cudastream"]) == (PRIMARY, STREAM)
        self.surface[:] = 255  # the last decoder's memory is another's now
        self.surface = np.zeros((ROWS, PITCH), np.uint8)
        return SimpleNamespace(Decode=self._decode)

    def __iter__(self) -> Iterator[int]:
        yield -1
        yield from range(self.frames)
        if "live" in self.__dict__:
            self.hangs.wait(10.0)

    def _decode(self, packet: int) -> List[Any]:
        if packet < 0:
            return []  # a header
        self.surface[:] = packet + 1
        address = self.surface.ctypes.data
        planes = [
            Plane(address, 32, 48, 1, self.typestr),
            Plane(address + PITCH * 32, 16, 24, 2, self.typestr),
        ]
        return [SimpleNamespace(cuda=lambda: planes)]


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch, driver: HostDriver) -> FakeCodec:
    fake = FakeCodec()
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", fake)  # type: ignore[arg-type]
    return fake


@pytest.fixture
def clip(tmp_path: Path) -> str:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"")
    return str(path)


def source(name: str, **options: Any) -> nvdec.NvdecSource:
    fps = options.pop("max_fps", None)
    return nvdec.create("door", name, nvdec.Options(**options), clock=Clock(), max_fps=fps)


def test_a_file_is_read_to_its_end_and_stays_on_the_device(codec: FakeCodec, clip: str) -> None:
    reader = source(clip)
    reader.open()
    assert not reader.live
    assert reader.fps == 10.0
    frames = list(iter(reader.read, None))
    assert [f.info.index for f in frames] == list(range(5))
    assert [f.info.time for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert all(isinstance(f, DeviceFrame) for f in frames)
    first = frames[0]
    assert (first.info.width, first.info.height) == (48, 32)
    assert first.surface.pitch == PITCH
    assert first.surface.chroma == first.surface.luma + PITCH * 32
    assert [shown(f) for f in frames if f] == [{1}, {2}, {3}, {4}, {5}]


def shown(frame: DeviceFrame) -> Any:
    """The bytes that a picture has, where it is now."""
    at = (ctypes.c_uint8 * (PITCH * ROWS)).from_address(frame.surface.luma)
    return set(at)


def test_pictures_outlive_their_decoder(codec: FakeCodec, driver: HostDriver, clip: str) -> None:
    reader = source(clip, loop=True)
    reader.open()
    frames = [reader.read() for _ in range(12)]
    reader.close()
    assert [shown(f) for f in frames if f] == [{n % 5 + 1} for n in range(12)]
    assert len(driver.memory) == 12
    frames.clear()
    assert not driver.memory


def test_a_picture_that_was_let_go_of_makes_room_for_another(
    codec: FakeCodec, driver: HostDriver, clip: str
) -> None:
    reader = source(clip)
    reader.open()
    held: List[Any] = []
    for frame in iter(reader.read, None):
        held = [*held[-1:], frame]
    assert driver.taken == 3  # two that are held, and the next
    assert [shown(f) for f in held] == [{4}, {5}]


def test_a_file_loops_and_its_time_goes_on(codec: FakeCodec, clip: str) -> None:
    reader = source(clip, loop=True)
    reader.open()
    frames = [reader.read() for _ in range(12)]
    assert [f.info.index for f in frames if f] == list(range(12))
    assert codec.opened == 3


def test_max_fps_leaves_frames_out(codec: FakeCodec, clip: str) -> None:
    reader = source(clip, max_fps=5.0)
    reader.open()
    assert [f.info.index for f in iter(reader.read, None)] == [0, 2, 4]
    assert reader.skipped == 2


def test_a_file_that_is_not_there_is_not_tried_again(codec: FakeCodec) -> None:
    with pytest.raises(SourceError, match="no such file") as e:
        source("gone.mp4").open()
    assert not e.value.retry


def test_the_codec_s_errors_become_ours(codec: FakeCodec, clip: str) -> None:
    codec.failure = RuntimeError("unsupported codec\nmore")
    with pytest.raises(SourceError, match=r"video decoder failed: unsupported codec$"):
        source(clip).open()


@pytest.mark.parametrize("live", [False, True])
def test_an_attempt_that_fails_leaves_nothing_behind(
    codec: FakeCodec, driver: HostDriver, clip: str, live: bool
) -> None:
    codec.failure = RuntimeError("Connection refused")
    reader = source("tcp://127.0.0.1:9" if live else clip)
    for _ in range(3):
        with pytest.raises(SourceError):
            reader.open()
    reader.close()
    assert driver.streams == 0


def test_a_stream_that_is_not_nv12_says_what_to_do(codec: FakeCodec, clip: str) -> None:
    codec.typestr = "|u2"
    reader = source(clip)
    reader.open()
    with pytest.raises(SourceError, match="8-bit"):
        reader.read()


def test_a_stream_that_hangs_is_lost_in_time(codec: FakeCodec) -> None:
    codec.live = True  # type: ignore[attr-defined]
    reader = source("tcp://127.0.0.1:9", read_timeout_s=0.2)
    assert reader.live
    reader.open()
    for _ in range(5):
        assert reader.read() is not None
    with pytest.raises(SourceError, match=r"no picture for 0\.2 s") as e:
        reader.read()
    assert e.value.retry
    codec.hangs.set()
    reader.close()


def test_why_a_stream_cannot_be_opened_is_told(codec: FakeCodec) -> None:
    codec.failure = RuntimeError("Connection refused")
    with pytest.raises(SourceError, match="Connection refused"):
        source("tcp://127.0.0.1:9").open()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, clip: str) -> None:
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="pip install PyNvVideoCodec") as e:
        source(clip).open()
    assert not e.value.retry
