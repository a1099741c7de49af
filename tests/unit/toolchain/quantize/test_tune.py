"""The whole way on a small detector whose pictures hold bright spots."""

import json
from pathlib import Path
from typing import List, Tuple

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from support import onnx_models
from support.onnx_models import picture_with_spots

from edgecount.cli.main import cli
from edgecount.errors import ConfigError
from edgecount.infer.onnxruntime import open_network
from edgecount.infer.precision import METADATA_KEY
from edgecount.infer.recipe import load
from edgecount.toolchain.quantize.agreement import Agreement, Scene
from edgecount.toolchain.quantize.judge import Judge, Verdict, some_pairs
from edgecount.toolchain.quantize.plan import Plan, Tuned, Yardsticks
from edgecount.toolchain.quantize.precision import PrecisionRules
from edgecount.toolchain.quantize.table import CalibrationTable
from edgecount.toolchain.quantize.tune import _best, tune

pytest.importorskip("pycocotools")

SIDE = 96
SPOTS: List[List[Tuple[int, int]]] = [[(28, 28)], [(60, 60)], [(28, 68), (68, 28)], [(44, 44)]]


@pytest.fixture
def spots(tmp_path: Path) -> Path:
    """A model that finds spots, behind a convolution that hands its input on, and pictures."""
    model = onnx_models.spot_model(tmp_path / "spots.onnx", width=SIDE, height=SIDE)
    _behind_a_convolution(model)
    onnx_models.write_recipe(model, "yolox", width=SIDE, height=SIDE)
    onnx_models.write_spot_data(tmp_path / "data", SPOTS, SIDE)
    return model


def _behind_a_convolution(path: Path) -> None:
    model = onnx.load(str(path))
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "images":
                node.input[index] = "passed"
    weight = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(weight, "pass.w"))
    conv = onnx.helper.make_node("Conv", ["images", "pass.w"], ["handed"], "pass")
    relu = onnx.helper.make_node("Relu", ["handed"], ["passed"], "pass.act")
    nodes = [conv, relu, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))


def pictures() -> List[np.ndarray]:
    return [picture_with_spots(centres, SIDE, SIDE) for centres in SPOTS]


def judged(model: Path) -> Tuple[onnx.ModelProto, Judge, object]:
    proto, recipe = onnx.load(str(model)), load(model.with_suffix(".recipe.yaml"))
    return proto, Judge(proto, recipe, some_pairs(model.parent / "data", (), None)), recipe


def test_fp32_finds_every_spot(spots: Path) -> None:
    _, judge, _ = judged(spots)
    assert judge.fp32 == pytest.approx(100.0)


def test_nothing_is_spared_where_int8_is_good_enough(spots: Path) -> None:
    proto, judge, recipe = judged(spots)
    said: List[str] = []
    tuned = tune(proto, recipe, pictures(), Yardsticks(judge), Plan(0.5), say=said.append)
    assert (tuned.within, tuned.spared, tuned.sensitivity) == (True, [], None)
    assert tuned.final.ap50 == pytest.approx(100.0)
    assert set(tuned.tried) == set(Plan(0.5).methods)
    assert tuned.final.sqnr_db > 20


def test_the_layer_is_spared_where_nothing_may_be_lost(spots: Path) -> None:
    proto, judge, recipe = judged(spots)
    # Less than nothing may be lost: only sparing every layer comes near, and it is not enough.
    tuned = tune(proto, recipe, pictures(), Yardsticks(judge), Plan(-1.0), say=lambda _text: None)
    assert not tuned.within
    assert tuned.spared == ["pass"]
    assert tuned.sensitivity is not None
    assert tuned.sensitivity.ranked == ["pass"]


def test_rules_that_leave_nothing_are_refused(spots: Path) -> None:
    proto, judge, recipe = judged(spots)
    plan = Plan(0.5, PrecisionRules(fp16=("pass",)), methods=("minmax",))
    with pytest.raises(ConfigError, match="no layer to quantise"):
        tune(proto, recipe, pictures(), Yardsticks(judge), plan, say=lambda _text: None)


def test_the_command_writes_file_table_and_cache(spots: Path) -> None:
    out, data = spots.with_name("spots.int8.onnx"), str(spots.parent / "data")
    arguments = ["--model", str(spots), "--images", data, "--data", data, "--out", str(out)]
    result = CliRunner().invoke(cli, ["quantize", *arguments])
    assert result.exit_code == 0, result.output
    assert "no layer spared" in result.output
    assert out.with_suffix(".table.json").is_file()
    assert out.with_suffix(".table.cache").read_text().startswith("TRT-")
    _, metadata = open_network(out)
    note = json.loads(metadata[METADATA_KEY])
    assert note["loss"]["within"] is True


def test_the_command_ranks_layers(spots: Path, tmp_path: Path) -> None:
    data, table = str(spots.parent / "data"), str(tmp_path / "t.json")
    ran = CliRunner().invoke(
        cli, ["calibrate", "--model", str(spots), "--images", data, "--out", table]
    )
    assert ran.exit_code == 0, ran.output
    plot = tmp_path / "plot.png"
    arguments = ["--model", str(spots), "--table", table, "--data", data, "--plot", str(plot)]
    result = CliRunner().invoke(cli, ["sensitivity", *arguments])
    assert result.exit_code == 0, result.output
    assert "pass" in result.output
    assert "4 pictures" in result.output
    assert cv2.imread(str(plot)) is not None


def test_of_two_good_calibrators_the_one_that_clips_less_is_taken() -> None:
    tables = {
        name: CalibrationTable("", name, 1, "", {}, {"x": amax, "y": 1.0})
        for name, amax in (("tight", 1.0), ("wide", 2.0), ("widest", 4.0))
    }
    tried = {
        "tight": Verdict(90.2, 20.0),
        "wide": Verdict(90.0, 10.0),
        "widest": Verdict(89.0, 9.0),
    }
    assert _best(tried, {}, tables) == "wide"


def test_of_two_good_calibrators_the_one_nearest_to_fp32_in_the_scene_is_taken() -> None:
    tables = {name: CalibrationTable("", name, 1, "", {}, {"x": 1.0}) for name in "abc"}
    tried = {"a": Verdict(90.2, 20.0), "b": Verdict(90.0, 10.0), "c": Verdict(89.0, 9.0)}
    seen = {n: Agreement(0.9, apart, 0.0, 10) for n, apart in zip("abc", (0.2, 0.1, 0.01))}
    assert _best(tried, seen, tables) == "b"


def tuned_by(spots: Path, plan: Plan, grown: List[int]) -> Tuned:
    """Tune with a scene, and with counts whose error grows as told, one after the other."""
    proto, judge, recipe = judged(spots)
    by = Yardsticks(judge, scene=Scene(proto, recipe, pictures()), counted=lambda _: grown.pop(0))
    return tune(proto, recipe, pictures(), by, plan, say=lambda _text: None)


def test_a_scene_decides_what_is_spared(spots: Path) -> None:
    # More than perfect agreement is asked for: every layer is spared, and it is not enough.
    tuned = tuned_by(spots, Plan(0.5, agreement=1.1), [0])
    assert not tuned.within
    assert tuned.spared == ["pass"] == list(tuned.damage) == list(tuned.bought)
    assert tuned.agreement is not None
    assert tuned.agreement.f1 == 1.0


def test_a_layer_is_spared_for_counts_alone(spots: Path) -> None:
    grown = [2, 0, 5]
    tuned = tuned_by(spots, Plan(0.5), grown)
    assert (tuned.within, tuned.spared, tuned.count_grown) == (True, ["pass"], 0)
    assert grown == [5]


def test_counts_that_only_confirm_steer_nothing(spots: Path) -> None:
    grown = [2, 0]
    tuned = tuned_by(spots, Plan(0.5, confirmations=1), grown)
    assert (tuned.within, tuned.spared, tuned.count_grown) == (False, [], 2)
    assert grown == [0]


def test_counts_end_where_no_layer_is_left(spots: Path) -> None:
    tuned = tuned_by(spots, Plan(0.5), [2, 3, 9])
    assert (tuned.within, tuned.spared, tuned.count_grown) == (False, [], 2)


def test_the_command_says_what_a_scene_makes_of_it(spots: Path) -> None:
    out, data = spots.with_name("spots.int8.onnx"), str(spots.parent / "data")
    arguments = ["--model", str(spots), "--images", data, "--data", data, "--out", str(out)]
    result = CliRunner().invoke(cli, ["quantize", *arguments, "--scene", data, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["agreement"]["f1"] == 1.0
    assert "FP32 sees 5 heads in 4 frames" in result.stderr
    _, metadata = open_network(out)
    assert json.loads(metadata[METADATA_KEY])["loss"]["agreement"] == 1.0


def test_a_table_of_another_model_ranks_nothing(spots: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    CalibrationTable("ab" * 32, "minmax", 1, "", {}, {"images": 255.0}).save(table)
    arguments = ["--model", str(spots), "--table", str(table), "--data", str(spots.parent / "data")]
    result = CliRunner().invoke(cli, ["sensitivity", *arguments])
    assert result.exit_code != 0
    assert "made for another file than spots.onnx" in str(result.exception)
