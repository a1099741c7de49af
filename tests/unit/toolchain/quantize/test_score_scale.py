"""Scores of a form on FP32's scale."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.toolchain.quantize.agreement import Pairs
from edgecount.toolchain.quantize.reference import SessionNetwork
from edgecount.toolchain.quantize.score_scale import (
    UNSCALED,
    ScoreScale,
    fit,
    fold,
    score_layers,
)


def recipe(head: str, classes: int) -> Recipe:
    names = [f"kind{i}" for i in range(classes)]
    return Recipe(
        name="x", file="x.onnx", head=head, classes=names, input=InputRecipe(width=32, height=32)
    )


def branches(*channels: int) -> onnx.ModelProto:
    """A convolution, and behind it one 1×1 convolution of so many channels for each output."""
    random = np.random.default_rng(0)
    weights = {"stem": random.normal(0, 1, (8, 3, 1, 1)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["images", "stem"], ["s"], "stem.conv")]
    for i, count in enumerate(channels):
        weights[f"w{i}"] = random.normal(0, 1, (count, 8, 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("Conv", ["s", f"w{i}"], [f"o{i}"], f"branch{i}"))
    outputs = [f"o{i}" for i in range(len(channels))]
    nodes.append(helper.make_node("Concat", outputs, ["output"], "join", axis=1))
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model


@given(
    st.floats(0.85, 1.2), st.floats(-0.9, 0.9), st.integers(0, 1000)
)  # fmt: skip
def test_a_scale_is_found_again(slope: float, shift: float, seed: int) -> None:
    form = np.random.default_rng(seed).normal(0, 1, 200).astype(np.float32)
    found = fit(Pairs((slope * form + shift).astype(np.float32), form))
    assert found == pytest.approx((slope, shift), abs=1e-3)


def test_few_heads_change_nothing() -> None:
    few = np.arange(50, dtype=np.float32)
    assert fit(Pairs(few, few + 1)) == UNSCALED
    same = np.ones(200, np.float32)
    assert fit(Pairs(same, same)) == UNSCALED


def test_score_layers_are_told_by_their_channels() -> None:
    assert score_layers(branches(4, 1), recipe("ltrb", 1)) == ["branch1"]
    assert score_layers(branches(4, 1, 7), recipe("yolox", 7)) == ["branch1"]
    assert score_layers(branches(4, 1, 1), recipe("yolox", 1)) == []  # which of the two?
    assert score_layers(branches(18), recipe("yolov5", 1)) == []


def test_the_score_alone_is_scaled() -> None:
    model = branches(4, 1)
    scaled = fold(model, ["branch1"], ScoreScale(1.5, -0.25))
    image = np.random.default_rng(2).normal(0, 1, (1, 3, 4, 4)).astype(np.float32)
    plain, got = (SessionNetwork(m, fuse=False).run(image) for m in (model, scaled))
    np.testing.assert_array_equal(got[:, :4], plain[:, :4])
    np.testing.assert_allclose(got[:, 4:], 1.5 * plain[:, 4:] - 0.25, rtol=1e-5, atol=1e-5)
