import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgecount.cli.main import cli
from edgecount.config import LineSettings, ZoneSettings
from edgecount.toolchain.evaluate.count import compare, matched
from edgecount.toolchain.evaluate.motchallenge import Rows, write_rows
from edgecount.toolchain.evaluate.truth import Counted, CountTruth, TruthEvent

LINE = LineSettings.model_validate({"name": "door", "from": (0.0, 0.5), "to": (1.0, 0.5)})
ZONE = ZoneSettings.model_validate(
    {"name": "hall", "polygon": [(0.0, 0.4), (1.0, 0.4), (1.0, 0.6), (0.0, 0.6)]}
)


def _event(frame, direction="in", name="door", kind="line"):
    return TruthEvent.model_validate(
        {"kind": kind, "name": name, "direction": direction, "frame": frame, "person": 1}
    )


def _truth(events, occupancy=(0, 0, 1, 2)):
    return CountTruth.model_validate(
        {
            "lines": [LINE],
            "zones": [ZONE],
            "anchor": "bottom",
            "fps": 10.0,
            "frames": len(occupancy),
            "width": 10,
            "height": 10,
            "events": events,
            "occupancy": {"hall": list(occupancy)},
        }
    )


def _counted(events, occupancy=(0, 1, 1, 1)):
    return Counted(events, np.array(occupancy, np.int64).reshape(-1, 1))


@pytest.mark.parametrize(
    ("true", "counted", "pairs"),
    [
        ([], [], 0),
        ([10], [30], 1),
        ([10], [31], 0),
        ([10, 30], [29], 1),
        ([10, 50], [29, 31], 2),
        ([10, 12, 14], [11, 100], 1),
    ],
)
def test_matching(true, counted, pairs):
    assert matched(true, counted, 20) == pairs


def _most(true, counted, window):
    """The size of the largest matching, by trying everything."""
    if not true:
        return 0
    first, rest = true[0], true[1:]
    best = _most(rest, counted, window)
    for n, frame in enumerate(counted):
        if abs(frame - first) <= window:
            best = max(best, 1 + _most(rest, counted[:n] + counted[n + 1 :], window))
    return best


small = st.lists(st.integers(min_value=0, max_value=30), max_size=5)


@given(true=small, counted=small, window=st.integers(min_value=0, max_value=8))
def test_matching_is_the_largest_possible(true, counted, window):
    assert matched(true, counted, window) == _most(true, counted, window)


def test_report_of_misses_and_extras():
    true = [_event(10), _event(100), _event(200, "out")]
    counted = [_event(15), _event(150), _event(300), _event(205, "out")]
    report = compare(_truth(true), _counted(counted))
    (line,) = report.lines
    assert (line.true_in, line.true_out, line.counted_in, line.counted_out) == (2, 1, 3, 1)
    assert (report.missed, report.extra, report.total_error) == (1, 2, 1)
    assert (report.true, report.counted) == (3, 4)


def test_directions_are_not_mixed():
    report = compare(_truth([_event(10)]), _counted([_event(10, "out")]))
    assert (report.missed, report.extra, report.total_error) == (1, 1, 2)


def test_occupancy_error_is_the_mean_over_frames():
    report = compare(_truth([]), _counted([]))
    assert report.occupancy_mae == pytest.approx(0.5)
    assert report.zones[0].mean_true_occupancy == pytest.approx(0.75)


def test_zone_events_are_counted_but_are_no_crossings():
    zone = _event(5, "entered", "hall", "zone")
    report = compare(_truth([zone]), _counted([zone, zone]))
    assert (report.zones[0].true_entered, report.zones[0].counted_entered) == (1, 2)
    assert (report.true, report.missed, report.extra) == (0, 0, 0)


@pytest.fixture
def sequence(tmp_path):
    """Two people who walk past each other; the folder of the sequence."""
    rows = []
    for frame in range(1, 81):
        for track, (x, y) in ((1, (300, 100 + 10 * frame)), (2, (700, 900 - 10 * frame))):
            rows.append((frame, track, x - 20, y - 100, x + 20, y))
    table = np.array(rows, np.float64)
    write_rows(
        tmp_path / "gt.txt",
        Rows(
            table[:, 0].astype(np.int32),
            table[:, 1].astype(np.int64),
            table[:, 2:].astype(np.float32),
            np.ones(len(table), np.float32),
        ),
    )
    (tmp_path / "seqinfo.ini").write_text(
        "[Sequence]\nname=s\nframeRate=10\nseqLength=80\nimWidth=1000\nimHeight=1000\n"
    )
    (tmp_path / "L.yaml").write_text(
        "lines: [{name: door, from: [0, 0.5], to: [1, 0.5]}]\n"
        "zones: [{name: hall, polygon: [[0, 0.4], [1, 0.4], [1, 0.6], [0, 0.6]]}]\n"
    )
    return tmp_path


def _run(*arguments):
    result = CliRunner().invoke(cli, ["eval", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def _make_truth(folder):
    out = folder / "T.yaml"
    lines, gt = folder / "L.yaml", folder / "gt.txt"
    return out, _run("make-truth", "--gt", gt, "--lines", lines, "--anchor", "foot", "--out", out)


def test_commands_find_no_fault_with_perfect_tracks(sequence):
    truth, said = _make_truth(sequence)
    assert "2 crossings of 1 lines, 80 frames" in said
    report = json.loads(_run("count", "--tracks", sequence / "gt.txt", "--truth", truth, "--json"))
    assert (report["true"], report["missed"], report["extra"]) == (2, 0, 0)
    assert report["occupancy_mae"] == 0.0


def test_commands_count_detections_with_the_default_tracker(sequence):
    truth, _ = _make_truth(sequence)
    report = json.loads(
        _run("count", "--detections", sequence / "gt.txt", "--truth", truth, "--json")
    )
    assert (report["missed"], report["extra"], report["total_error"]) == (0, 0, 0)


def test_table_for_people(sequence):
    truth, _ = _make_truth(sequence)
    shown = _run("count", "--tracks", sequence / "gt.txt", "--truth", truth)
    assert "2 true crossings: 0 missed, 0 extra" in shown
    assert "door" in shown
    assert "hall" in shown


def test_truth_goes_to_stdout_without_out(sequence):
    lines, gt = sequence / "L.yaml", sequence / "gt.txt"
    shown = _run("make-truth", "--gt", gt, "--lines", lines, "--anchor", "foot", "--fps", "5")
    assert "fps: 5.0" in shown
    assert "- {kind: line, name: door, direction: in, frame: 40, person: 1}" in shown


def test_exactly_one_input_is_wanted(sequence):
    truth, _ = _make_truth(sequence)
    result = CliRunner().invoke(cli, ["eval", "count", "--truth", str(truth)])
    assert result.exit_code == 2
    assert "one of --source, --detections and --tracks" in result.output


def test_a_size_that_is_none_is_named(sequence):
    lines, gt = sequence / "L.yaml", sequence / "gt.txt"
    arguments = ["eval", "make-truth", "--gt", gt, "--lines", lines, "--anchor", "foot"]
    result = CliRunner().invoke(cli, [*map(str, arguments), "--size", "10by10"])
    assert result.exit_code == 2
    assert "write it like 1920x1080" in result.output
