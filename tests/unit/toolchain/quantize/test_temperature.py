from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgecount.cli.temperature import command
from edgecount.errors import DatasetError
from edgecount.infer import recipe as recipes
from edgecount.infer.detector import untempered
from edgecount.toolchain.quantize import temperature
from edgecount.toolchain.quantize.temperature import calibration, expected_error, fit, logits_of
from edgecount.toolchain.yolo_files import find_pairs

PICTURES = Path(__file__).parent.parent / "evaluate" / "pictures"


def _labels(logits, true_temperature, seed=1):
    """Labels drawn so that the sigmoid of logit ÷ temperature is their probability."""
    chance = 1 / (1 + np.exp(-logits / true_temperature))
    return np.random.default_rng(seed).random(len(logits)) < chance


@pytest.mark.parametrize("wanted", [0.4, 1.0, 2.5])
def test_finds_the_temperature_that_drew_the_labels(wanted):
    logits = np.random.default_rng(0).normal(0, 3, 40_000)
    assert fit(logits, _labels(logits, wanted)) == pytest.approx(wanted, rel=0.05)


def test_agrees_with_the_minimum_on_a_grid():
    logits = np.random.default_rng(3).normal(-1, 2, 500)
    true = _labels(logits, 0.7)
    grid = np.linspace(0.2, 3, 2801)
    losses = [calibration(logits, true, t).nll for t in grid]
    assert fit(logits, true) == pytest.approx(grid[int(np.argmin(losses))], abs=2e-3)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: 0 < sum(label for _, label in rows) < len(rows)
    )
)
def test_never_makes_the_likelihood_worse_and_stays_in_bounds(rows):
    logits = logits_of([score for score, _ in rows])
    true = np.array([label for _, label in rows])
    found = fit(logits, true)
    assert 0.05 <= found <= 20.0
    assert calibration(logits, true, found).nll <= calibration(logits, true).nll + 1e-9


def test_labels_of_one_kind_teach_nothing():
    assert fit(np.array([1.0, 2.0]), np.array([True, True])) == 1.0
    assert fit(np.array([1.0, 2.0]), np.array([False, False])) == 1.0


def test_calibration_error_of_a_hand_worked_case():
    # Bin 0.8..0.9 holds two of score 0.85, one true: off by 0.35. Bin 0.2..0.3 holds two of 0.25,
    # none true: off by 0.25.
    scores = [0.85, 0.85, 0.25, 0.25]
    true = np.array([True, False, False, False])
    assert expected_error(scores, true, bins=10) == pytest.approx((0.35 + 0.25) / 2)
    assert expected_error([], np.zeros(0, bool)) == 0.0


def test_a_shipped_model_is_better_calibrated_on_pictures_it_was_not_fitted_on():
    pytest.importorskip("pycocotools")
    report = temperature.measure("head-n", PICTURES, size=640)
    assert report.after.nll < report.before.nll
    assert report.temperature < 1.0


def test_too_few_pictures_are_refused(tmp_path):
    pytest.importorskip("pycocotools")
    picture = find_pairs(PICTURES)[0][0]
    (tmp_path / picture.name).write_bytes(picture.read_bytes())
    result = CliRunner().invoke(command, ["--model", "head-n", "--data", str(tmp_path)])
    assert isinstance(result.exception, DatasetError)
    assert "too few" in str(result.exception)


def test_the_recipe_keeps_everything_else(tmp_path):
    path = tmp_path / "recipe.yaml"
    shipped = recipes.shipped()["head-n"] / "recipe.yaml"
    path.write_text(shipped.read_text())
    temperature.write_into(path, {"temperature": 0.73111, "low_threshold": 0.05})
    before, after = recipes.load(shipped), recipes.load(path)
    assert after == before.model_copy(update={"temperature": 0.7311, "low_threshold": 0.05})
    pairs = zip(path.read_text().splitlines(), shipped.read_text().splitlines())
    changed = [new for new, old in pairs if new != old]
    assert changed == ["low_threshold: 0.05", "temperature: 0.7311"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("temperature: 1.0  # none\nname: a\n", "temperature: 0.5  # none\nname: a\n"),
        ("name: a\n", "name: a\ntemperature: 0.5\n"),
    ],
)
def test_writes_one_line(tmp_path, text, wanted):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    temperature.write_into(path, {"temperature": 0.5})
    assert path.read_text() == wanted


@pytest.mark.parametrize("wanted", [0.5, 1.0, 3.0])
def test_moved_thresholds_are_the_same_raw_scores(wanted):
    recipe = recipes.load(recipes.shipped()["head-n"] / "recipe.yaml")
    moved = temperature.moved_thresholds(recipe, wanted)
    for name, value in moved.items():
        assert untempered(value, wanted) == pytest.approx(
            untempered(getattr(recipe, name), recipe.temperature), rel=1e-6
        )
