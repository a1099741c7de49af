import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, List, Optional

import cv2
import numpy as np
import pytest

from edgecount.capture import nvdec
from edgecount.capture._clock import Clock
from edgecount.errors import SourceError
from edgecount.records import DeviceFrame, FrameInfo, Surface

PRIMARY = 0xC0


class Plane:
    def __init__(self, address: int, rows: int, width: int, last: int, typestr: str) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": (rows, width, last),
            "strides": (64, last, 1),
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
        assert options["cudacontext"] == PRIMARY
        return SimpleNamespace(Decode=self._decode)

    def __iter__(self) -> Iterator[int]:
        yield -1
        yield from range(self.frames)
        if "live" in self.__dict__:
            self.hangs.wait(10.0)

    def _decode(self, packet: int) -> List[Any]:
        if packet < 0:
            return []  # a header
        address = 4096 * (packet + 1)
        planes = [
            Plane(address, 32, 48, 1, self.typestr),
            Plane(address + 64 * 32, 16, 24, 2, self.typestr),
        ]
        return [SimpleNamespace(cuda=lambda: planes)]


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> FakeCodec:
    fake = FakeCodec()
    monkeypatch.setattr(nvdec.ctypes, "CDLL", lambda _name: HostDriver())
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
    assert (first.surface.luma, first.surface.chroma, first.surface.pitch) == (4096, 6144, 64)
    assert first.surface.owner is not frames[1].surface.owner


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


def test_a_picture_comes_to_the_host_without_its_pitch(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(5).integers(16, 235, (32, 48, 3), np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 6)
    yuv = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    memory = np.zeros((48, 64), np.uint8)
    memory[:32, :48] = yuv[:32]
    memory[32:, 0:48:2] = yuv[32:40].reshape(16, 24)
    memory[32:, 1:48:2] = yuv[40:48].reshape(16, 24)
    monkeypatch.setattr(nvdec.ctypes, "CDLL", lambda _name: HostDriver())
    surface = Surface(0, memory.ctypes.data, memory[32:].ctypes.data, 64, memory)
    info = FrameInfo("door", 0, 0.0, 0.0, 48, 32)
    found = DeviceFrame(info, surface, nvdec.download).image
    assert found.shape == (32, 48, 3)
    assert np.abs(found.astype(int) - picture).mean() < 4


class HostDriver:
    """libcuda where device memory is host memory."""

    def cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> int:  # noqa: N802
        context._obj.value = PRIMARY
        return 0

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0

    def cuMemcpyDtoH_v2(self, target: Any, source: Any, size: Any) -> int:  # noqa: N802
        import ctypes

        ctypes.memmove(target.value, source.value, size.value)
        return 0
