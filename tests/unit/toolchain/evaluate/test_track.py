"""Scoring a tracker: the plumbing around TrackEval, and the numbers that are ours."""

import json
from pathlib import Path
from typing import List

import numpy as np
import pytest
from click.testing import CliRunner

from edgecount.cli.main import cli
from edgecount.errors import ConfigError, DatasetError
from edgecount.records import Detections, Tracks
from edgecount.toolchain.evaluate import motchallenge, track
from edgecount.toolchain.evaluate.motchallenge import Rows, SequenceInfo
from edgecount.toolchain.evaluate.track import Sample

FRAMES = 40


class Follower:
    """Gives each detection the id that a script says, by frame and rank."""

    def __init__(self, ids: List[List[int]]) -> None:
        self._ids = iter(ids)

    def update(self, seen: Detections, dt: float) -> Tracks:
        count = len(seen)
        return Tracks(
            np.array(next(self._ids), np.int64)[:count],
            seen.boxes,
            seen.scores,
            seen.classes,
            np.ones(count, np.bool_),
            np.zeros(0, np.int64),
        )

    def reset(self) -> None:
        raise AssertionError


def two_walkers() -> Sample:
    frames = np.repeat(np.arange(1, FRAMES + 1, dtype=np.int32), 2)
    x = 10.0 * frames
    y = np.tile([100.0, 400.0], FRAMES)
    boxes = np.stack((x, y, x + 40, y + 100), axis=1).astype(np.float32)
    ids = np.tile(np.array([7, 9], np.int64), FRAMES)
    rows = Rows(frames, ids, boxes, np.tile(np.array([0.9, 0.8], np.float32), FRAMES))
    return Sample(SequenceInfo("walk", 25.0, FRAMES, 640, 480), rows, rows)


def write(folder: Path, sample: Sample, detections: bool = True) -> Path:
    motchallenge.write_rows(folder / "gt.txt", sample.truth)
    if detections:
        motchallenge.write_rows(folder / "det.txt", sample.detections)
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nframeRate=25\nseqLength={FRAMES}\nimWidth=640\nimHeight=480\n"
    )
    return folder


def scores(ids: List[List[int]]) -> track.Scores:
    pytest.importorskip("trackeval")
    return track.evaluate([two_walkers()], lambda _: Follower(ids)).combined


def test_a_perfect_tracker_is_perfect() -> None:
    result = scores([[1, 2]] * FRAMES)
    assert (result.hota, result.idf1, result.mota) == pytest.approx((100, 100, 100))
    assert (result.id_switches, result.ids_per_person, result.people, result.ids) == (0, 1, 2, 2)


def test_exchanged_ids_are_two_switches_and_two_ids_per_person() -> None:
    half = FRAMES // 2
    result = scores([[1, 2]] * half + [[2, 1]] * half)
    assert result.id_switches == 2
    assert result.ids_per_person == 2
    assert result.idf1 == pytest.approx(50)
    assert result.mota == pytest.approx(100 * (1 - 2 / (2 * FRAMES)))


def test_a_missing_person_costs_recall_only() -> None:
    sample = two_walkers()
    first = sample.truth.ids == 7
    rows = sample.truth
    seen = Rows(rows.frames[first], rows.ids[first], rows.boxes[first], rows.scores[first])
    pytest.importorskip("trackeval")
    result = track.evaluate(
        [Sample(sample.info, rows, seen)], lambda _: Follower([[1]] * FRAMES)
    ).combined
    assert result.mota == pytest.approx(50)
    assert result.ids_per_person == 1


def test_sequences_are_combined() -> None:
    pytest.importorskip("trackeval")
    sample = two_walkers()
    other = Sample(SequenceInfo("again", 25.0, FRAMES), sample.truth, sample.detections)
    report = track.evaluate([sample, other], lambda _: Follower([[1, 2]] * FRAMES))
    assert set(report.sequences) == {"walk", "again"}
    assert (report.combined.people, report.combined.frames) == (4, 2 * FRAMES)
    assert report.as_dict()["sequences"]["walk"]["hota"] == pytest.approx(100)


def test_a_lower_frame_rate_keeps_every_nth_frame() -> None:
    thin = track.subsample(two_walkers(), 3)
    assert (thin.info.fps, thin.info.length) == (25 / 3, 14)
    assert thin.truth.frames.tolist()[:4] == [1, 1, 2, 2]
    np.testing.assert_array_equal(thin.truth.boxes[2], two_walkers().truth.boxes[6])


def test_iou_matrix() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    np.testing.assert_allclose(track.iou_matrix(a, b), [[1, 1 / 3, 0]])


def test_missing_detections_say_how_to_make_some(tmp_path: Path) -> None:
    write(tmp_path / "walk", two_walkers(), detections=False)
    with pytest.raises(DatasetError, match="--simulate"):
        track.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("two_stages", {}, "did you mean 'two_stage'"),
        ("two_stage", {"nois": "1"}, "did you mean 'noise'"),
        ("two_stage", {"noise": "much"}, "noise: "),
    ],
)
def test_wrong_trackers_and_options_are_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        track.named_tracker(name, options)


def test_the_command_prints_json(tmp_path: Path) -> None:
    pytest.importorskip("trackeval")
    write(tmp_path / "walk", two_walkers())
    arguments = ["eval", "track", "--dataset", str(tmp_path), "--set", "max_age=1", "--json"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    told = json.loads(result.output)
    assert told["hota"] > 90
    assert told["id_switches"] == 0
    assert told["us_per_frame"] > 0
    assert set(told["sequences"]) == {"walk"}


def test_the_command_simulates_and_prints_a_table(tmp_path: Path) -> None:
    pytest.importorskip("trackeval")
    write(tmp_path / "walk", two_walkers(), detections=False)
    arguments = ["eval", "track", "--dataset", str(tmp_path), "--simulate", "drop=0,seed=1"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "COMBINED" in result.output


def test_an_option_without_a_value_is_a_usage_error(tmp_path: Path) -> None:
    write(tmp_path / "walk", two_walkers())
    arguments = ["eval", "track", "--dataset", str(tmp_path), "--set", "max_age"]
    assert CliRunner().invoke(cli, arguments).exit_code == 2
