import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecount.errors import ModelError
from edgecount.toolchain.quantize.foreign import (
    asymmetric_nodes,
    check_symmetric,
    rewrite_file,
    to_symmetric,
)

WEIGHT = np.array([[100, -50], [25, 127]], np.int8).reshape(2, 2, 1, 1)


def foreign(zero: int = 100, kind: type = np.uint8) -> onnx.ModelProto:
    """As ONNX Runtime's quantiser writes it: uint8 activations, stored weights, INT32 bias."""
    constants = {
        "s": np.float32(0.1),
        "z": np.asarray(zero, kind),
        "w": WEIGHT,
        "ws": np.array([0.01, 0.02], np.float32),
        "wz": np.zeros(2, np.int8),
        "b": np.array([100, -200], np.int32),
        "bs": np.array([0.001, 0.002], np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "wdq", axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], "bdq", axis=0),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["y"], "conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 3, 3])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def test_the_nodes_are_named() -> None:
    assert [n.name for n in asymmetric_nodes(foreign())] == ["q", "dq", "bdq"]
    with pytest.raises(ModelError, match=r"QuantizeLinear node 'q' .*--symmetric"):
        check_symmetric(foreign())


def test_symmetric_uint8_is_not_what_tensorrt_reads() -> None:
    assert "q" in [n.name for n in asymmetric_nodes(foreign(0))]


def test_the_new_range_holds_the_old() -> None:
    symmetric, changes = to_symmetric(foreign())
    check_symmetric(symmetric)
    constants = {i.name: numpy_helper.to_array(i) for i in symmetric.graph.initializer}
    quantise = symmetric.graph.node[0]
    # 100 steps below zero and 155 above, of 0.1 each: 15.5 is the greater.
    assert constants[quantise.input[1]] == np.float32(15.5 / 127)
    assert len(changes) == 3
    x = np.random.default_rng(0).uniform(-10, 15, (1, 2, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(run(symmetric, x), run(foreign(), x), atol=0.5)


def test_weights_that_are_symmetric_stay() -> None:
    symmetric, _ = to_symmetric(foreign())
    assert any(i.name == "w" and numpy_helper.to_array(i).tolist() == WEIGHT.tolist()
               for i in symmetric.graph.initializer)  # fmt: skip


def test_asymmetric_weights_are_quantised_anew() -> None:
    model = foreign()
    (zero,) = [i for i in model.graph.initializer if i.name == "wz"]
    zero.CopyFrom(numpy_helper.from_array(np.array([3, -3], np.int8), "wz"))
    symmetric, _ = to_symmetric(model)
    check_symmetric(symmetric)
    x = np.ones((1, 2, 3, 3), np.float32)
    np.testing.assert_allclose(run(symmetric, x), run(model, x), atol=0.15)


def test_integer_operators_are_refused_by_node() -> None:
    model = foreign()
    model.graph.node.add(op_type="ConvInteger", name="ci", input=["xq", "w"], output=["z2"])
    with pytest.raises(ModelError, match="ConvInteger node 'ci'"):
        to_symmetric(model)


def test_a_file_that_is_symmetric_says_so(tmp_path) -> None:
    model, _ = to_symmetric(foreign())
    onnx.save(model, str(tmp_path / "a.onnx"))
    (line,) = rewrite_file(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert "symmetric already" in line


def test_one_scale_for_all_channels_may_be_a_list() -> None:
    """As ONNX Runtime writes biases of depthwise layers: one scale in a list, and no axis."""
    model = foreign()
    for constant in model.graph.initializer:
        if constant.name == "bs":
            constant.CopyFrom(numpy_helper.from_array(np.array([0.001], np.float32), "bs"))
    node = next(n for n in model.graph.node if n.name == "bdq")
    del node.attribute[:]
    symmetric, _ = to_symmetric(model)
    stored = {i.name: numpy_helper.to_array(i) for i in symmetric.graph.initializer}
    np.testing.assert_allclose(stored["bd"], [0.1, -0.2], rtol=1e-5)


def test_a_range_that_began_at_zero_still_hides_what_is_negative() -> None:
    """Quantisers leave out a Relu before uint8 with zero point 0: the range itself is one."""
    model = foreign(0)
    symmetric, changes = to_symmetric(model)
    x = np.linspace(-20, 20, 18, dtype=np.float32).reshape(1, 2, 3, 3)
    np.testing.assert_allclose(run(symmetric, x), run(model, x), atol=0.5)
    assert any("Relu" in change for change in changes)
