"""RTSP sources against a real gst-rtsp-server, and what can happen to it."""

import itertools
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
import structlog
from support.capture import drawn_clip
from support.rtsp import RtspServer, SilentListener, closed_port, seconds_until

from edgecount.capture import Reader, SlotGroup, State, open_source
from edgecount.capture.base import Source
from edgecount.errors import SourceError

pytestmark = pytest.mark.integration

PASSWORD = "s3cret!pw"
# What the product promises: noticed within 5 s, back within 5 s.
NOTICED_S = 5.0
BACK_S = 5.0
# Not a promise: how long a test waits for what it needs.
START_S = 20.0


@pytest.fixture
def server() -> Iterator[RtspServer]:
    started = RtspServer()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def guarded() -> Iterator[RtspServer]:
    started = RtspServer("--user", "viewer", "--password", PASSWORD)
    yield started
    started.kill()


@pytest.fixture
def start() -> Iterator[Callable[..., Reader]]:
    readers: List[Reader] = []
    names = (f"cam{i}" for i in itertools.count())

    def run(url: str, **options: Any) -> Reader:
        name = next(names)
        readers.append(Reader(name, open_source(name, url, options), SlotGroup().add()))
        readers[-1].start()
        return readers[-1]

    yield run
    for reader in readers:
        reader.stop(15.0)


def is_online(reader: Reader) -> Callable[[], bool]:
    return lambda: reader.state is State.ONLINE


def is_degraded(reader: Reader) -> Callable[[], bool]:
    return lambda: reader.state in (State.STALE, State.OFFLINE)


def exhaust(source: Source) -> None:
    for _ in range(100):
        source.read()


def open_error(url: str, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        open_source("door", url, options).open()
    assert caught.value.retry
    return str(caught.value)


class TestReading:
    @pytest.mark.parametrize("transport", ["tcp", "udp"])
    def test_pictures_come_live(self, server: RtspServer, transport: str) -> None:
        source = open_source("door", server.url(), {"transport": transport})
        source.open()
        frames = [source.read() for _ in range(15)]
        source.close()
        assert source.fps == pytest.approx(15.0)
        assert frames[0] is not None
        assert frames[-1] is not None
        assert (frames[0].info.width, frames[0].info.height) == (320, 240)
        # A backlog would come at once; live frames come at the camera's rate.
        assert frames[-1].info.time - frames[0].info.time == pytest.approx(14 / 15, abs=0.25)

    @pytest.mark.parametrize("method", ["basic", "digest"])
    def test_login(self, method: str) -> None:
        server = RtspServer("--user", "viewer", "--password", PASSWORD, "--auth", method)
        try:
            source = open_source("door", server.url(login=f"viewer:{PASSWORD}"))
            source.open()
            assert source.read() is not None
            source.close()
        finally:
            server.kill()

    def test_a_clip_that_is_served_ends_as_a_lost_stream(self, tmp_path: Path) -> None:
        clip = drawn_clip(tmp_path / "clip.avi", frames=30, fps=15.0)
        server = RtspServer("--file", str(clip))
        try:
            source = open_source("door", server.url())
            source.open()
            with pytest.raises(SourceError, match="broke off"):
                exhaust(source)
            source.close()
        finally:
            server.kill()

    def test_max_fps(self, server: RtspServer) -> None:
        source = open_source("door", server.url(), max_fps=5.0)
        source.open()
        frames = [source.read() for _ in range(6)]
        source.close()
        assert frames[0] is not None
        assert frames[-1] is not None
        assert frames[-1].info.time - frames[0].info.time == pytest.approx(1.0, abs=0.25)


class TestRefusals:
    def test_wrong_path(self, server: RtspServer) -> None:
        assert "no stream at this path (404)" in open_error(server.url("/nope"))

    def test_wrong_password(self, guarded: RtspServer, capfd: pytest.CaptureFixture[str]) -> None:
        with structlog.testing.capture_logs() as logs:
            error = open_error(guarded.url(login="viewer:wr0ng-pw"))
        assert "the user or password was refused (401)" in error
        assert "wr0ng-pw" not in error + str(logs) + "".join(capfd.readouterr())

    def test_no_login(self, guarded: RtspServer) -> None:
        assert "asks for a login" in open_error(guarded.url())

    def test_only_udp_is_served_and_tcp_is_asked_for(self) -> None:
        server = RtspServer("--transport", "udp")
        try:
            # Now and then the server is still busy with the failed attempt when it is asked.
            errors = [open_error(server.url(), transport="tcp") for _ in range(3)]
            assert any("try 'transport: udp'" in error for error in errors)
        finally:
            server.kill()

    def test_port_closed(self) -> None:
        url = f"rtsp://viewer:{PASSWORD}@127.0.0.1:{closed_port()}/cam"
        error = open_error(url)
        assert "nothing listens" in error
        assert PASSWORD not in error

    def test_silent_listener(self) -> None:
        listener = SilentListener()
        began = time.monotonic()
        error = open_error(f"rtsp://127.0.0.1:{listener.port}/cam", open_timeout_s=1.0)
        listener.close()
        assert "no answer" in error
        assert time.monotonic() - began < 3.0

    def test_a_wrong_password_is_not_tried_again_and_again(
        self, guarded: RtspServer, start: Callable[..., Reader]
    ) -> None:
        reader = start(guarded.url(login="viewer:wr0ng-pw"))
        seconds_until(lambda: "401" in reader.error, START_S)
        assert reader.state is State.CONNECTING
        assert reader.stop(1.0)  # also from within the half minute's wait


class TestOutages:
    def test_killed_and_restarted(self, server: RtspServer, start: Callable[..., Reader]) -> None:
        reader = start(server.url())
        seconds_until(is_online(reader), START_S)
        server.kill()
        seconds_until(is_degraded(reader), NOTICED_S)
        seconds_until(lambda: "nothing listens" in reader.error, START_S)
        server.start()
        assert seconds_until(is_online(reader), BACK_S) > 0.0
        assert reader.reconnects == 1
        assert reader.error == ""

    @pytest.mark.parametrize("away_s", [0.5, 4.0])
    def test_frozen_and_resumed(
        self, server: RtspServer, start: Callable[..., Reader], away_s: float
    ) -> None:
        reader = start(server.url())
        seconds_until(is_online(reader), START_S)
        server.freeze()
        seconds_until(is_degraded(reader), NOTICED_S)
        time.sleep(away_s)
        assert is_degraded(reader)()
        server.resume()
        seconds_until(is_online(reader), BACK_S)

    def test_frozen_and_killed_and_restarted(
        self, server: RtspServer, start: Callable[..., Reader]
    ) -> None:
        reader = start(server.url())
        seconds_until(is_online(reader), START_S)
        server.freeze()
        seconds_until(is_degraded(reader), NOTICED_S)
        server.kill()
        server.start()
        seconds_until(is_online(reader), BACK_S)

    def test_absent_at_first(self, server: RtspServer, start: Callable[..., Reader]) -> None:
        server.kill()
        reader = start(server.url())
        seconds_until(lambda: "nothing listens" in reader.error, START_S)
        assert reader.state is State.CONNECTING
        server.start()
        seconds_until(is_online(reader), BACK_S)

    def test_one_that_is_away_does_not_hold_up_another(
        self, server: RtspServer, start: Callable[..., Reader]
    ) -> None:
        listener = SilentListener()
        away = [start(f"rtsp://127.0.0.1:{listener.port}/{i}") for i in range(4)]
        time.sleep(0.2)
        seconds_until(is_online(start(server.url())), 4.0)
        assert all(reader.state is State.CONNECTING for reader in away)
        listener.close()

    def test_stopping_is_quick_while_the_camera_is_frozen(
        self, server: RtspServer, start: Callable[..., Reader]
    ) -> None:
        reader = start(server.url())
        seconds_until(is_online(reader), START_S)
        server.freeze()
        time.sleep(0.5)
        began = time.monotonic()
        reader.stop(1.0)
        assert time.monotonic() - began < 1.2
        server.resume()
