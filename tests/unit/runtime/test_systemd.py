import os
import socket
import time

import pytest

from edgecount.observe.health import Health
from edgecount.runtime.systemd import Notifier, Watchdog, watchdog_period_s


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A real service manager's end of the socket, and the address as systemd writes it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgecount-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if name[0] == "@" else name)
        sock.settimeout(3.0)
        yield sock, name


def received(sock):
    return sock.recv(4096).decode().split("\n")


def drained(sock):
    sock.setblocking(False)
    messages = []
    try:
        while True:
            messages.append(sock.recv(4096).decode())
    except BlockingIOError:
        return messages
    finally:
        sock.settimeout(3.0)


def test_each_notification_is_one_datagram(manager):
    sock, name = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": name})
    assert notifier.ready("2 cameras")
    assert received(sock) == ["READY=1", "STATUS=2 cameras"]
    notifier.status("25.0 FPS")
    assert received(sock) == ["STATUS=25.0 FPS"]
    notifier.watchdog()
    assert received(sock) == ["WATCHDOG=1"]
    notifier.extend_timeout(90.5)
    assert received(sock) == ["EXTEND_TIMEOUT_USEC=90500000"]
    notifier.stopping()
    assert received(sock) == ["STOPPING=1"]


def test_a_reload_carries_the_monotonic_time(manager):
    sock, name = manager
    before = time.monotonic_ns() // 1000
    Notifier(name).reloading()
    state, stamp = received(sock)
    assert state == "RELOADING=1"
    key, value = stamp.split("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000


def test_a_status_cannot_smuggle_in_another_assignment(manager):
    sock, name = manager
    Notifier(name).status("camera away\nREADY=1\nMAINPID=1")
    assert received(sock) == ["STATUS=camera away READY=1 MAINPID=1"]


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(address):
    assert Notifier(address).ready() is False


def test_a_manager_that_does_not_read_never_blocks(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        assert any(not notifier.watchdog() for _ in range(2000)), "the socket never filled up"
        begun = time.monotonic()
        assert notifier.watchdog() is False
        assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_period_that_the_manager_asks_for(environ, period):
    assert watchdog_period_s(environ, pid=42) == period


def test_beats_three_times_a_period_while_the_stages_turn(manager):
    sock, name = manager
    watchdog = Watchdog(Notifier(name), Health(), period_s=0.15)
    watchdog.start()
    for _ in range(3):
        assert received(sock) == ["WATCHDOG=1"]
    watchdog.close()
    watchdog.close()
    drained(sock)
    time.sleep(0.12)
    assert drained(sock) == []


def test_a_hung_stage_stops_the_beats_and_its_return_resumes_them(manager):
    sock, name = manager
    now = [0.0]
    health = Health(lambda: now[0])
    beat = health.stage("infer", 5.0)
    watchdog = Watchdog(Notifier(name), health, period_s=0.06)
    watchdog.start()
    assert received(sock) == ["WATCHDOG=1"]
    now[0] = 6.0
    time.sleep(0.1)
    while_hung = drained(sock)
    assert "STATUS=hung: stage infer has not turned for 6.0 s (limit 5 s)" in while_hung
    time.sleep(0.1)
    assert drained(sock) == []
    beat()
    assert received(sock) == ["WATCHDOG=1"]
    watchdog.close()


def test_a_camera_that_is_away_does_not_stop_the_beats(manager):
    sock, name = manager
    health = Health()
    health.camera("door", "offline", "no route to host")
    watchdog = Watchdog(Notifier(name), health, period_s=0.06)
    watchdog.start()
    for _ in range(3):
        assert received(sock) == ["WATCHDOG=1"]
    watchdog.close()
