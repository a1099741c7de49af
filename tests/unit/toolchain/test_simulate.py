import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgecount.cli.main import cli
from edgecount.errors import ConfigError
from edgecount.toolchain import simulate
from edgecount.toolchain.evaluate.motchallenge import read_info, read_rows
from edgecount.toolchain.evaluate.truth import read_truth_file
from edgecount.track import two_stage


@pytest.fixture(scope="module")
def walking():
    return simulate.simulate(simulate.scenario("walking"), seed=7)


def _result(scene):
    return simulate.judge(scene, two_stage.create(two_stage.Options()))


def test_the_same_seed_makes_the_same_scene(walking):
    again = simulate.simulate(simulate.scenario("walking"), seed=7)
    other = simulate.simulate(simulate.scenario("walking"), seed=8)
    assert np.array_equal(walking.detections.boxes, again.detections.boxes)
    assert walking.counted == again.counted
    assert walking.counted != other.counted


def test_truth_is_known_without_the_counter(walking):
    """Everybody walks from top to bottom or back: one crossing of each line a person."""
    rows = walking.truth
    middle = 0.5 * (rows.boxes[:, 1] + rows.boxes[:, 3])
    down = sum(middle[rows.ids == i][-1] > middle[rows.ids == i][0] for i in np.unique(rows.ids))
    people = len(np.unique(rows.ids))
    for line in ("across", "slanted"):
        events = [e for e in walking.counted.events if e.name == line]
        assert sum(e.direction == "in" for e in events) == down
        assert len(events) == people


def test_detections_are_like_the_model_says():
    kind = simulate.scenario("flicker")
    scene = simulate.simulate(kind, seed=3)
    found = len(scene.detections) - kind.frames * kind.detector.false_per_frame
    assert found / len(scene.truth) == pytest.approx(0.6, abs=0.03)
    assert ((scene.detections.scores > 0) & (scene.detections.scores < 1)).all()


def test_nothing_is_seen_in_a_drop_out():
    scene = simulate.simulate(simulate.scenario("drop-outs"), seed=3)
    seconds = scene.detections.frames / 25.0
    near = np.abs(scene.detections.boxes[:, 0] - 640) < 1e9
    assert near.all()
    in_gap = (seconds % 4.0 < 0.6 - 1e-9) & (scene.detections.scores > 0.6)
    assert not in_gap.any()


def test_nobody_is_seen_behind_the_beam():
    kind = simulate.scenario("occlusion")
    scene = simulate.simulate(kind, seed=3)
    sure = scene.detections.scores > 0.6  # a false detection may lie anywhere
    y = 0.5 * (scene.detections.boxes[sure, 1] + scene.detections.boxes[sure, 3])
    assert np.abs(y - 360).min() > 30


def test_walking_people_are_counted_without_error(walking):
    result = _result(walking)
    assert result.true == result.counted == 88
    assert (result.missed, result.extra, result.error) == (0, 0, 0.0)


@pytest.mark.parametrize("name", ["crowd", "occlusion", "flicker", "drop-outs"])
def test_hard_scenes_stay_within_a_percent(name):
    assert _result(simulate.simulate(simulate.scenario(name), seed=7)).error <= 0.01


def test_runners_are_not_lost():
    """Up to three head widths from frame to frame; pairs that look like one who stands remain."""
    kind = simulate.scenario("runners")
    results = [_result(simulate.simulate(kind, seed)) for seed in range(4)]
    assert simulate.overall(results).error <= 0.02


def test_overall_adds_up(walking):
    result = _result(walking)
    total = simulate.overall([result, result])
    assert (total.true, total.counted, total.scenario) == (176, 176, "overall")
    assert simulate.overall([]).error == 0.0


def test_an_unknown_scenario_is_named():
    with pytest.raises(ConfigError, match="did you mean 'walking'"):
        simulate.scenario("walkin")


def test_scenes_can_be_written_and_read(walking, tmp_path):
    simulate.write_scene(walking, tmp_path / "walking")
    assert read_info(tmp_path / "walking") == walking.info
    assert len(read_rows(tmp_path / "walking" / "det.txt")) == len(walking.detections)
    assert read_truth_file(tmp_path / "walking" / "truth.yaml") == walking.counted


def test_command_prints_a_table_and_json(tmp_path):
    arguments = ["simulate", "--scenario", "runners", "--seed", "5"]
    shown = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "runners" in shown.output
    assert "overall" in shown.output
    data = CliRunner().invoke(cli, [*arguments, "--json", "--out", str(tmp_path)])
    report = json.loads(data.output)
    assert report["scenarios"][0]["true"] == report["overall"]["true"] == 88
    assert (tmp_path / "runners" / "gt.txt").is_file()
