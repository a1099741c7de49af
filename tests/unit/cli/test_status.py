import io

import pytest
from rich.console import Console

from edgecount.cli._status import CameraStatus, ServiceStatus, render
from edgecount.records import LineTotals, Snapshot, ZoneState

DOOR = CameraStatus(
    state="online",
    fps_target=25.0,
    latency_ms=43.2,
    dropped=0,
    snapshot=Snapshot(
        "door",
        ts=0.0,
        seq=9,
        visible=7,
        fps=24.97,
        lines={"entrance": LineTotals(1234, 1198), "side-entrance": LineTotals(12, 9)},
        zones={"hall": ZoneState(5, 1300, 1295, 754.0), "desk": ZoneState(0, 20, 20, 0.0)},
    ),
)
YARD = CameraStatus(
    state="degraded",
    reason="no frame for 4.2 s; reconnecting",
    fps_target=10.0,
    dropped=311,
    snapshot=Snapshot("yard", 0.0, 9, 0, lines={"gate": LineTotals(3, 5)}, degraded=("stale",)),
)
FILE = CameraStatus("online", Snapshot("clip", 0.0, 0, 3, fps=31.4), latency_ms=51.0)
SERVICE = ServiceStatus(
    device="lobby",
    engine="head-n int8 on tensorrt",
    uptime_s=93_784.0,
    cameras=[DOOR, YARD, FILE],
    broker=(False, "login refused"),
    outbox=17,
    places={"building": 46, "hall": 5},
    cpu_cores=0.83,
    rss_mb=211.0,
    warnings=("the ledger cannot be written; counting goes on in memory",),
)


def shown(status, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(status))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_fits_any_width_and_shows_every_figure(width):
    text = shown(SERVICE, width)
    assert max(len(line) for line in text.splitlines()) <= width
    for figure in ("lobby", "25.0", "/ 25", "43 ms", "1234", "1198", "+36", "-2", "311", "1300"):
        assert figure in text
    for fact in ("broker away, 17 waiting: login refused", "no frame for 4.2 s", "12m 34s"):
        assert fact in text
    assert "counting goes on in memory" in text
    assert "building 46" in text


def test_wide_terminals_show_two_cameras_side_by_side():
    assert not any("door" in x and "yard" in x for x in shown(SERVICE, 80).splitlines())
    assert any("door" in x and "yard" in x for x in shown(SERVICE, 120).splitlines())


def test_a_file_has_no_target_and_a_service_may_have_no_broker():
    text = shown(ServiceStatus("pc", "cpu", 5.0, [FILE]), 80)
    assert "31.4" in text
    assert "/ " not in text
    assert "no broker" in text


def test_long_names_are_cut_and_numbers_are_not():
    name = "x" * 64
    snapshot = Snapshot("a", 0.0, 0, 0, lines={name: LineTotals(123456, 654321)})
    text = shown(ServiceStatus("d" * 64, "e" * 80, 0.0, [CameraStatus("online", snapshot)]), 80)
    assert "123456" in text
    assert "654321" in text
    assert max(len(line) for line in text.splitlines()) <= 80
