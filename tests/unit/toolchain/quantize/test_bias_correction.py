"""What rounding and clipping put into a layer on average comes out again."""

from typing import List

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.toolchain.quantize.bias_correction import correct, measure
from edgecount.toolchain.quantize.precision import PrecisionRules
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.reference import SessionNetwork
from edgecount.toolchain.quantize.table import CalibrationTable

SIDE = 32
CLIPPED = 50.0
RECIPE = Recipe(
    name="two", file="two.onnx", head="ltrb", classes=["head"],
    input=InputRecipe(width=SIDE, height=SIDE),
)  # fmt: skip


def two_layers(bias: bool = True) -> onnx.ModelProto:
    """Two 1×1 convolutions with a Relu between, the first with a bias or without."""
    random = np.random.default_rng(0)
    constants = {
        "w1": random.normal(0, 0.3, (4, 3, 1, 1)).astype(np.float32),
        "b1": np.ones(4, np.float32),
        "w2": random.normal(0, 0.3, (2, 4, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w1", "b1"][: 3 if bias else 2], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"], "act"),
        helper.make_node("Conv", ["r", "w2"], ["output"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2, SIDE, SIDE])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model


def pictures() -> List[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(4)]


def table() -> CalibrationTable:
    """The second layer's input is clipped, so that its output is too small on average."""
    return CalibrationTable("", "minmax", 4, "", {}, {"images": 255.0, "r": CLIPPED})


def mean_error(form: onnx.ModelProto, model: onnx.ModelProto) -> np.ndarray:
    inputs = [p.transpose(2, 0, 1)[None].astype(np.float32) for p in pictures()]
    both = [SessionNetwork(one, fuse=False) for one in (form, model)]
    away = [both[0].run(x) - both[1].run(x) for x in inputs]
    return np.abs(np.mean(away, axis=(0, 1, 3, 4)))


@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_error_is_gone(bias: bool) -> None:
    model = two_layers(bias)
    corrections = measure(model, table(), pictures(), RECIPE)
    assert {k: v.shape for k, v in corrections.items()} == {"first": (4,), "second": (2,)}
    before = mean_error(write_qdq(model, table()), model)
    after = mean_error(correct(write_qdq(model, table()), corrections), model)
    assert before.max() > 1.0
    assert after.max() < 0.05 * before.max()


def test_a_layer_that_is_spared_is_left_alone() -> None:
    model = two_layers()
    corrections = measure(model, table(), pictures(), RECIPE)
    rules = PrecisionRules(fp32=("first",))
    form = correct(write_qdq(model, table(), rules), corrections)
    named = {node.name: node for node in form.graph.node}
    assert named["first"].input[2] == "b1"
    assert named["second"].input[2] == "second.corrected_bias"
    onnx.checker.check_model(form)


def test_the_model_itself_is_not_changed() -> None:
    model = two_layers()
    before = model.SerializeToString()
    measure(model, table(), pictures(), RECIPE)
    assert model.SerializeToString() == before
