"""Placement, scales and precision of Q/DQ on graphs that are worked out by hand."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from support.onnx_graphs import Builder, reads, scale_of

from edgecount.errors import ConfigError, DatasetError, ModelError
from edgecount.infer.precision import METADATA_KEY
from edgecount.toolchain.quantize.precision import PrecisionRules
from edgecount.toolchain.quantize.qdq import (
    channel_scales,
    tensors_to_calibrate,
    write_qdq,
)
from edgecount.toolchain.quantize.table import CalibrationTable


def table(**amax: float) -> CalibrationTable:
    dotted = {name.replace("__", "."): value for name, value in amax.items()}
    return CalibrationTable("sha", "minmax", 1, "", {}, dotted)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"x": x})[0]


def activated(kind: str) -> onnx.ModelProto:
    b = Builder()
    first = b.conv("x", "a")
    if kind == "SiLU":
        middle = b.silu(first)
    elif kind == "Clip":
        b.constants["low"], b.constants["high"] = np.float32(0.0), np.float32(6.0)
        middle = b.node("Clip", [first, "low", "high"], "a.act")
    else:
        middle = b.node(kind, [first], "a.act")
    return b.model(b.conv(middle, "b"))


@pytest.mark.parametrize("kind", ["Relu", "SiLU", "Clip", "LeakyRelu", "Elu"])
def test_nothing_stands_between_a_convolution_and_its_activation(kind: str) -> None:
    written = write_qdq(activated(kind), table(x=127.0, a__act=12.7))
    read = reads(written)
    assert read["a"] == ["q:x", "q:a.w", "a.b"]
    assert read["b"] == ["q:a.act", "q:b.w", "b.b"]
    assert read["a.act"][0] == "a"
    assert scale_of(written, "x") == np.float32(1.0)
    assert scale_of(written, "a.act") == np.float32(0.1)


def test_hard_swish_is_an_activation() -> None:
    b = Builder(opset=14)
    middle = b.node("HardSwish", [b.conv("x", "a")], "a.act")
    read = reads(write_qdq(b.model(b.conv(middle, "b")), table(x=1.0, a__act=1.0)))
    assert read["a.act"] == ["a"]
    assert read["b"][0] == "q:a.act"


def test_weights_have_a_scale_for_each_output_channel() -> None:
    b = Builder()
    b.conv("x", "a")
    b.constants["a.w"] = np.array([[0.5, -1.27], [0.0, 0.0]], np.float32).reshape(2, 2, 1, 1)
    written = write_qdq(b.model("a"), table(x=1.0))
    np.testing.assert_allclose(scale_of(written, "a.w"), [0.01, 1 / 127], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis", "wanted"),
    [
        ((2, 3, 1, 1), 0, [3.0, 6.0]),
        ((2, 3, 1, 1), 1, [4.0, 5.0, 6.0]),
        ((2, 3), -1, [4.0, 5.0, 6.0]),
        ((2, 3), None, 6.0),
    ],
)
def test_channel_scales(shape: tuple, axis: object, wanted: object) -> None:
    weight = -np.arange(1, 7, dtype=np.float32).reshape(shape)
    np.testing.assert_allclose(channel_scales(weight, axis), np.asarray(wanted) / 127, rtol=1e-6)


def test_output_is_that_of_integers_worked_out_by_hand() -> None:
    b = Builder(channels=1, size=1)
    b.conv("x", "a", (1, 1))
    b.constants["a.w"] = np.full((1, 1, 1, 1), 2.0, np.float32)
    b.constants["a.b"] = np.array([0.5], np.float32)
    written = write_qdq(b.model("a"), table(x=12.7))  # scale 0.1
    # 0.26 → 3 steps of 0.1; ×2 + 0.5. 20 is clipped to 127 steps. −0.25 rounds to even: −2.
    for x, y in ((0.26, 1.1), (20.0, 25.9), (-20.0, -25.1), (-0.25, 0.1)):
        got = run(written, np.full((1, 1, 1, 1), x, np.float32))
        assert got.item() == pytest.approx(y, abs=1e-5), x


def test_a_residual_is_quantised_where_the_convolution_takes_the_add_into_itself() -> None:
    b = Builder()
    shortcut = b.node("Relu", [b.conv("x", "a")], "a.act")
    total = b.node("Add", [shortcut, b.conv(shortcut, "b")], "sum")
    written = write_qdq(b.model(b.conv(total, "c")), table(x=1.0, a__act=2.0, sum=4.0, b=9.0))
    assert reads(written)["sum"] == ["q:a.act", "b"]
    assert reads(written)["c"][0] == "q:sum"


def test_both_inputs_are_quantised_where_an_activation_stands_before_the_add() -> None:
    b = Builder()
    shortcut = b.node("Relu", [b.conv("x", "a")], "a.act")
    branch = b.node("Relu", [b.conv(shortcut, "b")], "b.act")
    total = b.node("Add", [shortcut, branch], "sum")
    written = write_qdq(b.model(b.conv(total, "c")), table(x=1.0, a__act=2.0, b__act=3.0, sum=4.0))
    assert reads(written)["sum"] == ["q:a.act", "q:b.act"]
    assert scale_of(written, "b.act") == np.float32(3.0 / 127)


def test_adding_a_bias_is_no_residual() -> None:
    b = Builder()
    b.constants["bias"] = np.ones((1, 2, 1, 1), np.float32)
    total = b.node("Add", [b.conv("x", "a"), "bias"], "sum")
    read = reads(write_qdq(b.model(b.conv(total, "c")), table(x=1.0, sum=2.0)))
    assert read["sum"] == ["a", "bias"]


def test_scales_match_across_concat_pool_and_resize() -> None:
    b = Builder()
    a = b.node("Relu", [b.conv("x", "a")], "a.act")
    pooled = b.node("MaxPool", [a], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    other = b.node("Relu", [b.conv(a, "b")], "b.act")
    b.constants["factors"] = np.array([1, 1, 2, 2], np.float32)
    for name, source in (("up", other), ("up2", pooled)):
        b.node("Resize", [source, "", "factors"], name, mode="nearest")
    joined = b.node("Concat", ["up", "up2"], "joined", axis=1)
    b.conv(joined, "c", (4, 2))
    b.conv(other, "d")
    b.conv(pooled, "e")
    amax = {"x": 1.0, "a__act": 2.0, "b__act": 8.0, "joined": 3.0, "pool": 2.0}
    written = write_qdq(b.model("c", "d", "e"), table(**amax))
    wanted = np.float32(8.0 / 127)
    for tensor in ("a.act", "b.act", "pool", "joined"):
        assert scale_of(written, tensor) == wanted, tensor
    assert scale_of(written, "x") == np.float32(1.0 / 127)


def test_two_readers_share_one_quantisation() -> None:
    b = Builder()
    a = b.node("Relu", [b.conv("x", "a")], "a.act")
    written = write_qdq(b.model(b.conv(a, "b"), b.conv(a, "c")), table(x=1.0, a__act=1.0))
    quantisers = [n.input[0] for n in written.graph.node if n.op_type == "QuantizeLinear"]
    assert quantisers.count("a.act") == 1


def test_a_transposed_convolution_counts_its_channels_on_the_second_axis() -> None:
    b = Builder()
    b.constants["w"] = np.arange(1, 7, dtype=np.float32).reshape(2, 3, 1, 1)
    b.node("ConvTranspose", ["x", "w"], "a")
    np.testing.assert_allclose(
        scale_of(write_qdq(b.model("a"), table(x=1.0)), "w"),
        np.array([4, 5, 6]) / 127,
        rtol=1e-6,
    )


@pytest.mark.parametrize(("transposed", "wanted"), [(0, [3.0, 4.0]), (1, [2.0, 4.0])])
def test_gemm_counts_its_channels_where_transb_says(transposed: int, wanted: list) -> None:
    b = Builder(channels=2, size=1)
    b.constants["w"] = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    flat = b.node("Flatten", ["x"], "flat")
    b.node("Gemm", [flat, "w"], "a", transB=transposed)
    written = write_qdq(b.model("a"), table(flat=1.0))
    np.testing.assert_allclose(scale_of(written, "w"), np.array(wanted) / 127, rtol=1e-6)


def test_bins_of_yolov8_are_not_quantised() -> None:
    b = Builder(channels=4)
    a = b.node("Relu", [b.conv("x", "a", (4, 4))], "a.act")
    b.conv(a, "dfl", (4, 1))
    b.constants["dfl.w"] = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    read = reads(write_qdq(b.model("dfl"), table(x=1.0, a__act=1.0)))
    assert read["dfl"][:2] == ["a.act", "dfl.w"]


def test_a_norm_is_folded_into_its_convolution() -> None:
    b = Builder()
    numbers = {"gamma": [2.0, 1.0], "beta": [0.5, 0.0], "mean": [1.0, 0.0], "var": [4.0, 1.0]}
    b.constants.update({k: np.array(v, np.float32) for k, v in numbers.items()})
    normed = b.node("BatchNormalization", [b.conv("x", "a"), *numbers], "a.bn", epsilon=0.0)
    b.node("Relu", [normed], "a.act")
    model = b.model("a.act")
    written = write_qdq(model, table(x=1.27))
    assert [n.op_type for n in written.graph.node].count("BatchNormalization") == 0
    np.testing.assert_allclose(
        scale_of(written, "a.folded_weight"),
        np.abs(b.constants["a.w"]).max(axis=(1, 2, 3)) / 127,
        rtol=1e-6,  # γ ÷ σ is 1 for both channels
    )
    x = np.random.default_rng(1).uniform(-1, 1, (1, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(written, x), run(model, x), atol=0.03)


def test_weights_in_constant_nodes_are_weights() -> None:
    b = Builder()
    value = onnx.numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32))
    b.nodes.append(onnx.helper.make_node("Constant", [], ["w"], value=value))
    b.node("Conv", ["x", "w"], "a")
    assert reads(write_qdq(b.model("a"), table(x=1.0)))["a"] == ["q:x", "q:w"]


def test_opset_11_is_raised_and_metadata_stays() -> None:
    b = Builder(opset=11)
    model = b.model(b.conv("x", "a"), metadata={"edgecount.recipe": "name: n"})
    written = write_qdq(model, table(x=1.0))
    assert written.opset_import[0].version == 13
    props = {p.key: p.value for p in written.metadata_props}
    assert props["edgecount.recipe"] == "name: n"
    assert json.loads(props[METADATA_KEY])["layers"] == {"int8": 1, "fp16": 0, "fp32": 0}


def test_an_fp16_layer_is_cast_around_and_scales_stay_float32() -> None:
    b = Builder()
    a = b.node("Relu", [b.conv("x", "a")], "a.act")
    middle = b.node("Relu", [b.conv(a, "b")], "b.act")
    model = b.model(b.conv(middle, "c"))
    rules = PrecisionRules(fp16=("b", "b.act"))
    written = write_qdq(model, table(x=1.0, a__act=1.0, b__act=1.0), rules)
    types = {i.name: i.data_type for i in written.graph.initializer}
    assert types["b.w.half"] == onnx.TensorProto.FLOAT16
    assert {t for n, t in types.items() if n.endswith(".scale")} == {onnx.TensorProto.FLOAT}
    casts = [n for n in written.graph.node if n.op_type == "Cast"]
    assert len(casts) == 2  # into b, and out of b's activation
    read = reads(written)
    assert read["b.act"] == ["b"]
    assert read["c"][0].startswith("q:")
    onnx.checker.check_model(written, full_check=True)


def test_an_fp32_layer_reads_what_was_not_quantised() -> None:
    model = activated("Relu")
    read = reads(write_qdq(model, table(x=1.0), PrecisionRules(fp32=("b",))))
    assert read["b"] == ["a.act", "b.w", "b.b"]
    assert read["a"][0] == "q:x"


def test_tensors_to_calibrate_are_those_that_are_quantised() -> None:
    assert tensors_to_calibrate(activated("Relu")) == ["x", "a.act"]
    assert tensors_to_calibrate(activated("Relu"), PrecisionRules(fp32=("b",))) == ["x"]


def test_a_model_that_is_quantised_is_refused_by_node() -> None:
    written = write_qdq(activated("Relu"), table(x=1.0, a__act=1.0))
    with pytest.raises(ModelError, match=r"QuantizeLinear node 'x\.quantize'"):
        write_qdq(written, table(x=1.0, a__act=1.0))


def test_a_table_of_another_model_is_refused_by_tensor() -> None:
    with pytest.raises(DatasetError, match=r"'a\.act'"):
        write_qdq(activated("Relu"), table(x=1.0))


def test_a_rule_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'nekc\.\*'"):
        write_qdq(activated("Relu"), table(x=1.0, a__act=1.0), PrecisionRules(fp16=("nekc.*",)))


def test_control_flow_is_refused_by_node() -> None:
    b = Builder()
    b.conv("x", "a")
    model = b.model("a")
    inner = onnx.helper.make_graph([], "inner", [], [])
    model.graph.node.add(op_type="If", name="branch", output=["y"]).attribute.append(
        onnx.helper.make_attribute("then_branch", inner)
    )
    with pytest.raises(ModelError, match="If node 'branch'"):
        write_qdq(model, table(x=1.0))
