"""FP16 in the file."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import conv_models

from edgecount.errors import ModelError
from edgecount.toolchain.quantize.half import to_half


def run(model: onnx.ModelProto, picture: "np.ndarray") -> "np.ndarray":
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (output,) = session.run(None, {session.get_inputs()[0].name: picture})
    return output


@pytest.fixture
def model(tmp_path) -> onnx.ModelProto:
    return onnx.load(str(conv_models.yolov8_like(tmp_path / "m.onnx")))


def picture(batch: int = 1) -> "np.ndarray":
    return np.random.default_rng(1).random((batch, 3, 64, 96), dtype=np.float32)


def weights_of(model: onnx.ModelProto):
    return {i.name: i.data_type for i in model.graph.initializer if i.name.endswith(".half")}


def test_it_computes_the_same_within_half_precision(model) -> None:
    half = to_half(model)
    onnx.checker.check_model(half)
    expected, got = run(model, picture(2)), run(half, picture(2))
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= 5e-3 * np.abs(expected).max()
    assert np.abs(got - expected).max() > 0


def test_all_weights_are_halved_and_the_ends_stay(model) -> None:
    half = to_half(model)
    floats = [i.name for i in half.graph.initializer if i.data_type == TensorProto.FLOAT]
    assert floats == []
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert half.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert sum(n.op_type == "Cast" for n in half.graph.node) == 2


def test_a_kept_layer_stays_in_float(model) -> None:
    half = to_half(model, lambda name: name == "head.1")
    onnx.checker.check_model(half)
    kept = next(n for n in half.graph.node if n.name == "head.1")
    types = {i.name: i.data_type for i in half.graph.initializer}
    assert types[kept.input[1]] == TensorProto.FLOAT
    other = next(n for n in half.graph.node if n.name == "head.0")
    assert types[other.input[1]] == TensorProto.FLOAT16
    assert run(half, picture()).shape == run(model, picture()).shape


def test_everything_kept_is_the_same_network(model) -> None:
    assert np.array_equal(run(to_half(model, lambda _: True), picture()), run(model, picture()))


def test_node_names_and_the_original_stay(model) -> None:
    before = model.SerializeToString()
    names = [n.name for n in to_half(model).graph.node if n.op_type != "Cast"]
    assert names == [n.name for n in model.graph.node]
    assert model.SerializeToString() == before


def _small(nodes, weights, shape=(1, 1, 4, 4), opset=13) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def test_scales_of_a_resize_stay_float(tmp_path) -> None:
    model = _small(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], "up", mode="nearest")],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    )
    half = to_half(model)
    onnx.checker.check_model(half)
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    assert np.array_equal(run(half, x), run(model, x))


def test_casts_and_constants_follow(tmp_path) -> None:
    value = numpy_helper.from_array(np.float32(0.5), "v")
    model = _small(
        [
            helper.make_node("Constant", [], ["half"], "c", value=value),
            helper.make_node("Cast", ["x"], ["i"], "to_int", to=TensorProto.INT64),
            helper.make_node("Cast", ["i"], ["f"], "to_float", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "half"], ["y"], "mul"),
        ],
        {},
    )
    half = to_half(model)
    onnx.checker.check_model(half)
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    assert np.array_equal(run(half, x), run(model, x))


def test_a_weight_beyond_half_is_named() -> None:
    model = _small(
        [helper.make_node("Mul", ["x", "huge"], ["y"], "mul")], {"huge": np.float32(1e6)}
    )
    with pytest.raises(ModelError, match=r"weight 'huge' holds 1e\+06"):
        to_half(model)
    assert to_half(model, lambda name: name == "mul").graph.node[0].input[1] == "huge"


def test_quantised_nodes_keep_their_float_scales(tmp_path) -> None:
    source = conv_models.yolov8_like(tmp_path / "m.onnx")
    model = onnx.load(str(conv_models.with_qdq(source, tmp_path / "m.int8.onnx")))
    half = to_half(model)
    onnx.checker.check_model(half)
    assert np.isfinite(run(half, picture())).all()
