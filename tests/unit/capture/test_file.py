import os
from pathlib import Path
from typing import Any, List

import cv2
import numpy as np
import pytest
import structlog
from support.capture import FakeClock, drawn_clip

from edgecount.capture import open_source
from edgecount.capture.base import Source
from edgecount.errors import SourceError
from edgecount.records import Frame


def make(path: Path, clock: "FakeClock | None" = None, **options: Any) -> Source:
    max_fps = options.pop("max_fps", None)
    return open_source("door", str(path), options, clock=clock or FakeClock(), max_fps=max_fps)


def read_all(source: Source, limit: int = 1000) -> List[Frame]:
    source.open()
    frames: List[Frame] = []
    while len(frames) < limit:
        frame = source.read()
        if frame is None:
            break
        frames.append(frame)
    source.close()
    return frames


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return drawn_clip(tmp_path / "clip.avi", frames=30, fps=10.0)


def test_every_frame_in_order(clip: Path) -> None:
    frames = read_all(make(clip))
    assert [f.info.index for f in frames] == list(range(30))
    greys = [int(f.image.mean()) for f in frames]
    assert np.abs(np.array(greys) - [(i * 8) % 256 for i in range(30)]).max() <= 2


def test_times_come_from_the_index_and_not_from_the_clock(clip: Path) -> None:
    clock = FakeClock()
    source = make(clip, clock)
    start = clock.wall()
    frames = read_all(source)
    assert source.fps == 10.0
    assert not source.live
    assert [f.info.time for f in frames] == pytest.approx([i / 10 for i in range(30)])
    assert [f.info.ts - start for f in frames] == pytest.approx([i / 10 for i in range(30)])
    assert frames[0].info.width == 64
    assert frames[0].info.height == 48
    assert frames[0].image.shape == (48, 64, 3)


def test_start_and_fps_can_be_given(clip: Path) -> None:
    frames = read_all(make(clip, fps=7.0, start=1_000_000.0))
    assert frames[7].info.time == pytest.approx(1.0)
    assert frames[7].info.ts == pytest.approx(1_000_001.0)


def test_realtime_waits_for_each_frame_without_drift(clip: Path) -> None:
    clock = FakeClock()
    source = make(clip, clock, realtime=True)
    source.open()
    began = clock.monotonic()
    for index in range(30):
        frame = source.read()
        assert frame is not None
        assert clock.monotonic() - began == pytest.approx(index / 10, abs=1e-6)
        clock.now += 0.03  # the time that processing takes must not add up


def test_realtime_catches_up_after_a_pause(clip: Path) -> None:
    clock = FakeClock()
    source = make(clip, clock, realtime=True)
    source.open()
    source.read()
    clock.now += 1.0
    clock.waits.clear()
    for _ in range(10):
        source.read()
    assert clock.waits == []


def test_interrupt_ends_the_wait(clip: Path) -> None:
    source = make(clip, realtime=True)
    source.open()
    source.interrupt()
    assert source.read() is not None  # due at once
    assert source.read() is None


def test_loop_goes_on_counting(clip: Path) -> None:
    frames = read_all(make(clip, loop=True), limit=75)
    assert [f.info.index for f in frames] == list(range(75))
    assert int(frames[30].image.mean()) == int(frames[0].image.mean())
    assert frames[74].info.time == pytest.approx(7.4)


def test_max_fps_thins_out_and_leaves_gaps_in_the_index(clip: Path) -> None:
    source = make(clip, max_fps=5.0)
    assert [f.info.index for f in read_all(source)] == list(range(0, 30, 2))
    assert source.skipped == 15


def test_reading_twice_gives_the_same_pictures(clip: Path) -> None:
    source = make(clip)
    first, second = read_all(source), read_all(source)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second))
    assert [f.info.index for f in second] == list(range(30))


def test_file_url(clip: Path) -> None:
    source = open_source("door", f"file://{clip}")
    assert len(read_all(source)) == 30


class TestPictures:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for index in (1, 2, 10):
            cv2.imwrite(str(tmp_path / f"frame{index}.png"), np.full((4, 6, 3), index, np.uint8))
        (tmp_path / "notes.txt").write_text("no picture")
        return tmp_path

    def test_a_folder_in_natural_order(self, folder: Path) -> None:
        frames = read_all(make(folder, fps=2.0))
        assert [int(f.image[0, 0, 0]) for f in frames] == [1, 2, 10]
        assert [f.info.time for f in frames] == [0.0, 0.5, 1.0]

    def test_a_pattern(self, folder: Path) -> None:
        frames = read_all(make(folder / "frame1*.png"))
        assert [int(f.image[0, 0, 0]) for f in frames] == [1, 10]

    def test_a_damaged_picture_is_named(self, folder: Path) -> None:
        (folder / "frame3.png").write_bytes(b"no picture")
        with pytest.raises(SourceError, match=r"frame3\.png is not a picture") as caught:
            read_all(make(folder))
        assert not caught.value.retry

    def test_a_folder_without_pictures(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="holds no pictures"):
            make(tmp_path).open()


class TestDamage:
    def refusal(self, path: Path) -> str:
        with pytest.raises(SourceError) as caught:
            read_all(make(path))
        assert not caught.value.retry
        assert path.name in str(caught.value)
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        assert "there is no file" in self.refusal(tmp_path / "gone.mp4")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        assert "is empty" in self.refusal(tmp_path / "empty.mp4")

    def test_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "text.mp4").write_text("these are words and no pictures\n" * 1000)
        assert "not a video" in self.refusal(tmp_path / "text.mp4")

    def test_noise(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8)
        (tmp_path / "noise.avi").write_bytes(noise.tobytes())
        assert "not a video" in self.refusal(tmp_path / "noise.avi")

    def test_no_regular_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.avi")
        assert "neither a file nor a folder" in self.refusal(tmp_path / "pipe.avi")

    def test_mp4_cut_off_before_its_index(self, tmp_path: Path) -> None:
        whole = drawn_clip(tmp_path / "whole.mp4", frames=60, fourcc="mp4v").read_bytes()
        (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
        assert "damaged" in self.refusal(tmp_path / "cut.mp4")

    def test_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "secret.avi").write_bytes(b"x")
        (tmp_path / "secret.avi").chmod(0)
        if os.access(tmp_path / "secret.avi", os.R_OK):
            pytest.skip("this user may read everything")
        assert "Permission denied" in self.refusal(tmp_path / "secret.avi")

    def test_a_clip_that_breaks_off_warns_with_its_frames(self, tmp_path: Path) -> None:
        whole = drawn_clip(tmp_path / "whole.avi", frames=60).read_bytes()
        (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
        with structlog.testing.capture_logs() as logs:
            frames = read_all(make(tmp_path / "cut.avi"))
        assert 10 < len(frames) < 50
        (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
        assert warning["frames_read"] == len(frames)
        assert warning["frames_expected"] == 60

    def test_damage_in_the_middle_ends_and_does_not_hang(self, tmp_path: Path) -> None:
        whole = bytearray(drawn_clip(tmp_path / "whole.avi", frames=60).read_bytes())
        middle = len(whole) // 2
        whole[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
        (tmp_path / "hole.avi").write_bytes(bytes(whole))
        frames = read_all(make(tmp_path / "hole.avi"))
        assert 10 < len(frames) <= 60

    def test_reading_before_open(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="not open"):
            make(tmp_path / "any.avi").read()
