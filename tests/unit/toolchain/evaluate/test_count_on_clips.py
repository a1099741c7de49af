"""Counts on real clips and ground truth; skipped where the data is not there."""

import os
from pathlib import Path

import numpy as np
import pytest

from edgecount.config import LineSettings
from edgecount.toolchain.evaluate import count, motchallenge, truth

LINES = Path(__file__).parents[3] / "data" / "lines" / "vtest.yaml"


def _needed(variable):
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    path = Path(value)
    if not path.exists():
        pytest.skip(f"{variable} names {path}, which does not exist")
    return path


@pytest.fixture
def pets():
    return _needed("EDGECOUNT_MOT_DIR") / "MOT15" / "PETS09-S2L1"


def _derive(sequence, places, anchor="bottom"):
    info = motchallenge.read_info(sequence)
    return truth.derive(motchallenge.read_truth(sequence), info, places, anchor)


def _count(expected, stream):
    counted = count.count_stream(expected, stream.frames, stream.anchor, expected.fps)
    return count.compare(expected, counted)


def test_vtest_with_a_small_detector(pets):
    clip, model = _needed("EDGECOUNT_VTEST"), _needed("EDGECOUNT_TEST_MODEL")
    expected = _derive(pets, truth.read_lines(LINES))
    stream = count.stream_of_clip(str(clip), str(model), expected, expected.fps)
    report = _count(expected, stream)
    assert report.true >= 80
    assert report.frames == 795
    assert report.missed <= 3
    assert report.extra <= 3
    assert report.occupancy_mae <= 0.2


def test_counts_are_the_same_from_run_to_run(pets):
    expected = _derive(pets, truth.read_lines(LINES))
    reports = [
        _count(expected, count.stream_of_detections(pets / "det.txt", expected, expected.fps))
        for _ in range(2)
    ]
    assert reports[0] == reports[1]


@pytest.mark.parametrize("name", ["MOT15/PETS09-S2L1", "MOT15/TUD-Stadtmitte", "HT21/HT21-01"])
def test_ground_truth_tracks_are_counted_without_fault_at_any_line(name):
    """The product's own rules, stitching included, must not disturb perfect tracks."""
    sequence = _needed("EDGECOUNT_MOT_DIR") / name
    rng = np.random.default_rng(3)
    lines = []
    for n in range(40):
        ends = rng.uniform(0.05, 0.95, 4).tolist()
        data = {"name": f"line{n}", "from": ends[:2], "to": ends[2:]}
        lines.append(LineSettings.model_validate(data))
    expected = _derive(sequence, truth.LinesFile(lines, []))
    report = _count(expected, count.stream_of_tracks(sequence / "gt.txt", expected, expected.fps))
    assert report.true > 0
    assert (report.missed, report.extra, report.total_error) == (0, 0, 0)
