"""A calibration set from a real RTSP server, also when the camera goes away meanwhile."""

import threading
import time
from pathlib import Path
from typing import Iterator, List

import pytest
from support.rtsp import RtspServer, closed_port

from edgecount.errors import DatasetError, SourceError
from edgecount.toolchain.quantize.calibration_set import CalibrationImages, Plan, build
from edgecount.toolchain.quantize.calibration_set.source import stream_candidates

pytestmark = pytest.mark.integration

PASSWORD = "s3cret!pw"


@pytest.fixture
def server() -> Iterator[RtspServer]:
    started = RtspServer("--user", "viewer", "--password", PASSWORD)
    yield started
    started.kill()


def test_watches_a_camera_for_a_while(server: RtspServer, tmp_path: Path) -> None:
    # The test picture's ball moves and its snow never repeats.
    url = server.url(login=f"viewer:{PASSWORD}")
    manifest = build(Plan(url, count=18, fps=15.0, seconds=8.0), tmp_path / "set")
    assert 40 < manifest.seen < 140
    images = list(CalibrationImages(tmp_path / "set"))
    assert len(images) == len(manifest.images) >= 17
    assert images[0].shape == (240, 320, 3)
    text = (tmp_path / "set" / "manifest.json").read_text(encoding="utf-8")
    assert PASSWORD not in text
    assert "viewer:***@" in text


def test_connects_again_when_the_camera_was_away(server: RtspServer) -> None:
    told: List[str] = []
    begun = time.monotonic()

    def outage() -> None:
        server.kill()
        time.sleep(1.0)
        server.start()

    url = server.url(login=f"viewer:{PASSWORD}")
    breaker = threading.Timer(3.0, outage)
    breaker.start()
    frames = stream_candidates(url, None, 14.0, told.append)
    times = [time.monotonic() - begun for _ in frames]
    breaker.join()
    assert told
    assert all(PASSWORD not in text for text in told)
    assert times[0] < 4.0
    assert times[-1] > 10.0
    assert time.monotonic() - begun < 25.0


def test_two_frames_a_second_of_a_camera_unless_told(server: RtspServer) -> None:
    url = server.url(login=f"viewer:{PASSWORD}")
    frames = list(stream_candidates(url, None, 4.0, pytest.fail))
    assert 6 <= len(frames) <= 10


def test_a_camera_that_is_not_there(tmp_path: Path) -> None:
    url = f"rtsp://viewer:{PASSWORD}@127.0.0.1:{closed_port()}/cam"
    with pytest.raises(SourceError) as caught:
        build(Plan(url, seconds=2.0), tmp_path / "set")
    assert PASSWORD not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_too_short_a_look(server: RtspServer, tmp_path: Path) -> None:
    url = server.url(login=f"viewer:{PASSWORD}")
    with pytest.raises(DatasetError, match=r"watch the camera longer \(--seconds\)"):
        build(Plan(url, seconds=1.0), tmp_path / "set")
