import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from support.onnx_graphs import Builder

from edgecount.toolchain.quantize import graph as graphs
from edgecount.toolchain.quantize.equalize import apply, divisors, seams
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.table import CalibrationTable


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


def test_what_channels_were_divided_by_is_found_again() -> None:
    b = Builder()
    first = b.node("Relu", [b.conv("x", "a")], "a.act")
    second = b.node("Relu", [b.conv(first, "b")], "b.act")
    b.conv(second, "c")
    original = b.model("c")
    equalised = graphs.prepared(original)
    ranges = {"a.act": np.array([16.0, 1.0]), "b.act": np.array([0.0, 9.0])}
    apply(equalised, seams(equalised), {k: v.astype(np.float32) for k, v in ranges.items()})
    found = divisors(original, equalised)
    assert sorted(found) == ["a", "a.act", "b", "b.act"]
    x = np.random.default_rng(2).normal(size=(1, 2, 4, 4)).astype(np.float32)
    for name, divided_by in found.items():
        assert set(np.log2(divided_by) % 1) == {0.0}
        np.testing.assert_array_equal(
            seen(equalised, name, x) * divided_by.reshape(1, -1, 1, 1), seen(original, name, x)
        )


def test_they_are_found_in_a_file_that_was_quantised_or_trained_since() -> None:
    original = chain()
    equalised = chain()
    apply(equalised, seams(equalised), {"a.act": np.array([16.0, 1.0], np.float32)})
    wanted = divisors(original, equalised)
    noise = np.random.default_rng(3)
    for stored in equalised.graph.initializer:
        value = numpy_helper.to_array(stored)
        drifted = (value * noise.uniform(0.9, 1.1, value.shape)).astype(np.float32)
        stored.CopyFrom(numpy_helper.from_array(drifted, stored.name))
    table = CalibrationTable("sha", "minmax", 1, "", {}, {"x": 3.0, "a.act": 9.0})
    quantised = write_qdq(equalised, table)
    for name, divided_by in wanted.items():
        np.testing.assert_array_equal(divisors(original, quantised)[name], divided_by)


def test_files_that_were_not_equalised_have_none() -> None:
    assert divisors(chain(), chain()) == {}
    other = chain()
    for node in other.graph.node:
        node.output[0] += ".other"
    assert divisors(chain(), other) == {}


def seen(model: onnx.ModelProto, name: str, x: np.ndarray) -> np.ndarray:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(copy.SerializeToString())
    return session.run([name], {"x": x})[0]
