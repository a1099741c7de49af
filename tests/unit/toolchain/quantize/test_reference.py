import numpy as np
import pytest
from support.onnx_graphs import Builder

from edgecount.infer import cpu_features
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.reference import (
    SessionNetwork,
    compare,
    differences,
    signal_to_noise,
)
from edgecount.toolchain.quantize.table import CalibrationTable


def test_differences_are_in_steps_of_each_channel() -> None:
    wanted = np.array([[[127.0, 0.0], [1.27, 0.0]]], np.float32)
    got = wanted + np.array([[[0.0, 2.0], [0.0, 0.005]]], np.float32)
    found = differences(wanted, got, 1)
    assert found.steps_max == pytest.approx(2.0)
    assert found.within_one == 0.75


def test_signal_to_noise() -> None:
    wanted = [np.full(4, 10.0, np.float32)]
    assert signal_to_noise(wanted, [wanted[0] + 1.0]) == pytest.approx(20.0)
    assert signal_to_noise(wanted, wanted) == np.inf


def quantised():
    b = Builder(channels=8, size=6)
    middle = b.node("Relu", [b.conv("x", "a", (8, 8), 3)], "a.act")
    amax = {"x": 4.0, "a.act": 20.0}
    model = b.model(b.conv(middle, "b", (8, 8), 3))
    return write_qdq(model, CalibrationTable("", "minmax", 1, "", {}, amax))


def test_the_reference_is_rounding_and_clipping_written_in_numpy() -> None:
    """The same file by ONNX's own NumPy evaluator, which knows nothing of fusions."""
    from onnx.reference import ReferenceEvaluator

    x = np.random.default_rng(0).normal(size=(2, 8, 6, 6)).astype(np.float32)
    model = quantised()
    model.opset_import[0].version = 19  # the evaluator begins there; Q/DQ means the same
    wanted = ReferenceEvaluator(model).run(None, {"x": x})[0]
    got = SessionNetwork(quantised(), fuse=False).run(x)
    assert differences(wanted, got, 1).steps_max <= 1.0


@pytest.mark.skipif(
    cpu_features.read().saturates, reason="this CPU has AVX2 without VNNI: products saturate"
)
def test_integer_arithmetic_is_within_one_step_of_the_reference() -> None:
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 6)).astype(np.float32)
    assert compare(quantised(), [x]).steps_max <= 1.0
