"""What quantisation does to counts, with a model that counts and one that is blind."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.onnx_models import spot_model
from support.service import SIDE, walkers_clip

from edgecount.infer import recipe as recipes
from edgecount.infer.onnxruntime import open_network
from edgecount.infer.recipe import Recipe
from edgecount.toolchain.evaluate.truth import CountTruth
from edgecount.toolchain.quantize.counts import CountJudge

WALKERS = 2


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return walkers_clip(tmp_path / "walkers.avi", crossings=WALKERS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return spot_model(tmp_path / "spots.onnx", "yolox", width=SIDE, height=SIDE)


@pytest.fixture
def recipe(model: Path) -> Recipe:
    network, metadata = open_network(model)
    return recipes.infer(model, network.input_shape, network.output_shape, metadata)


@pytest.fixture
def truth() -> CountTruth:
    line = {"name": "middle", "from": (0.0, 0.5), "to": (1.0, 0.5)}
    crossings = [
        {"frame": 13 + 46 * w, "person": w, "kind": "line", "name": "middle", "direction": "in"}
        for w in range(WALKERS)
    ]
    return CountTruth.model_validate(
        {
            "lines": [line],
            "anchor": "center",
            "fps": 10.0,
            "frames": 46 * WALKERS,
            "width": SIDE,
            "height": SIDE,
            "events": crossings,
        }
    )


def blinded(model: Path) -> onnx.ModelProto:
    """A copy of a model whose weights are all zero."""
    proto = onnx.load(str(model))
    for weight in proto.graph.initializer:
        value = numpy_helper.to_array(weight)
        if value.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(np.zeros_like(value), weight.name))
    return proto


def test_the_same_model_loses_nothing(
    clip: Path, model: Path, recipe: Recipe, truth: CountTruth
) -> None:
    proto = onnx.load(str(model))
    judge = CountJudge(proto, recipe, str(clip), truth)
    assert (judge.fp32, judge.true, judge(proto)) == (0, WALKERS, 0)


def test_a_model_that_sees_nothing_loses_every_crossing(
    clip: Path, model: Path, recipe: Recipe, truth: CountTruth
) -> None:
    judge = CountJudge(onnx.load(str(model)), recipe, str(clip), truth)
    assert judge(blinded(model)) == WALKERS
