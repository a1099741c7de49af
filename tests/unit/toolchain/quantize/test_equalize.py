import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from support.onnx_graphs import Builder

from edgecount.toolchain.quantize import graph as graphs
from edgecount.toolchain.quantize.equalize import apply, seams


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def chain(kind: str = "Relu", groups: int = 1) -> onnx.ModelProto:
    b = Builder()
    middle = b.node(kind, [b.conv("x", "a")], "a.act")
    b.constants["b.w"] = np.ones((2, 2 // groups, 1, 1), np.float32)
    b.node("Conv", [middle, "b.w"], "b", group=groups)
    return graphs.prepared(b.model("b"))


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(i) for i in model.graph.initializer if i.name == name)


def test_a_depthwise_layer_takes_all_of_the_difference() -> None:
    model = chain(groups=2)
    before = weight(model, "a.w").copy()
    apply(model, seams(model), {"a.act": np.array([8.0, 1.0], np.float32)})
    np.testing.assert_array_equal(weight(model, "a.w")[0], before[0])
    np.testing.assert_array_equal(weight(model, "a.w")[1], before[1] * 8)
    np.testing.assert_array_equal(weight(model, "b.w").reshape(-1), [1.0, 0.125])


def test_a_dense_layer_takes_half_of_it() -> None:
    model = chain()
    apply(model, seams(model), {"a.act": np.array([16.0, 1.0], np.float32)})
    np.testing.assert_array_equal(weight(model, "b.w")[:, :, 0, 0], [[1.0, 0.25], [1.0, 0.25]])


def test_the_output_is_the_same_to_the_bit() -> None:
    x = np.random.default_rng(2).normal(size=(1, 2, 4, 4)).astype(np.float32)
    for groups in (1, 2):
        model = chain(groups=groups)
        wanted = run(model, x)
        apply(model, seams(model), {"a.act": np.array([0.0, 5.0], np.float32)})
        np.testing.assert_array_equal(run(model, x), wanted)


def test_a_dead_channel_moves_by_64_at_most() -> None:
    model = chain(groups=2)
    apply(model, seams(model), {"a.act": np.array([0.0, 5.0], np.float32)})
    assert weight(model, "b.w").reshape(-1).tolist() == [1 / 64, 1.0]


def test_other_activations_have_no_seam() -> None:
    assert not seams(chain("Sigmoid"))
    assert [s.tensor for s in seams(chain())] == ["a.act"]


def test_what_others_read_too_has_no_seam() -> None:
    b = Builder()
    middle = b.node("Relu", [b.conv("x", "a")], "a.act")
    b.node("Add", [middle, b.conv(middle, "b")], "sum")
    assert not seams(graphs.prepared(b.model("sum")))
