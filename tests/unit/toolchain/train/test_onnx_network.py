"""An ONNX graph in PyTorch: the same numbers, and gradients where training needs them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgecount.errors import ModelError  # noqa: E402
from edgecount.infer import recipe as recipes  # noqa: E402
from edgecount.toolchain.train.onnx_network import (  # noqa: E402
    OnnxNetwork,
    fake_quantise,
    weight_scale,
)


def _conv_model(quantised, op="Relu", zero=0):
    """A 1×1 convolution of two channels; its input and weight behind Q/DQ where asked for."""
    weight = np.array([[1.0, -0.5], [0.25, 0.125]], np.float32).reshape(2, 2, 1, 1)
    values = {"conv.weight": weight, "conv.bias": np.array([0.5, -1.0], np.float32)}
    nodes = [helper.make_node(op, ["act"], ["output"], "last")]
    conv = ["images", "conv.weight", "conv.bias"]
    if quantised:
        scale = np.abs(weight).max((1, 2, 3)) / np.float32(127)
        values.update(
            {
                "s": np.array(0.1, np.float32),
                "z": np.array(zero, np.int8),
                "ws": scale,
                "wz": np.zeros(2, np.int8),
                "wq": np.rint(weight / scale[:, None, None, None]).astype(np.int8),
            }
        )
        nodes += [
            helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"], "q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], "dq"),
            helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], "wdq", axis=0),
        ]
        conv = ["dq", "w", "conv.bias"]
    nodes.append(helper.make_node("Conv", conv, ["act"], "conv"))
    shape = [1, 2, None, None]
    graph = helper.make_graph(
        nodes[1:] + nodes[:1],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(a, n) for n, a in values.items() if quantised or n in conv],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _in_onnxruntime(model, images):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"images": images})[0]


def test_rounds_half_to_even_and_clips():
    x = torch.tensor([0.24, 0.25, 0.75, -0.25, 100.0, -100.0])
    got = fake_quantise(x, torch.tensor(0.5))
    assert got.tolist() == [0.0, 0.0, 1.0, 0.0, 63.5, -64.0]


def test_gradients_pass_the_rounding_and_stop_at_the_clipping_point():
    x = torch.tensor([0.3, 100.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    fake_quantise(x, scale).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0]
    # LSQ, equation 3: round(v) − v inside, 127 above, with v = 0.6.
    assert scale.grad.item() == pytest.approx(1.0 - 0.6 + 127.0)


def test_weights_have_a_scale_for_each_output_channel():
    weight = torch.tensor([[[[2.0]], [[-4.0]]], [[[0.0]], [[0.0]]]])
    scale = weight_scale(weight)
    assert scale.shape == (2, 1, 1, 1)
    assert scale[0].item() == pytest.approx(4 / 127)
    assert torch.isfinite(fake_quantise(weight, scale)).all()


@pytest.mark.parametrize("quantised", [False, True])
def test_computes_what_onnxruntime_computes(quantised):
    model, plain = _conv_model(quantised), _conv_model(False)
    images = np.random.default_rng(0).normal(0, 8, (1, 2, 6, 5)).astype(np.float32)
    with torch.no_grad():
        got = OnnxNetwork(model, plain)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(got, _in_onnxruntime(model, images), atol=1e-5)


def test_learns_weights_biases_and_scales():
    network = OnnxNetwork(_conv_model(True), _conv_model(False))
    network(torch.full((1, 2, 2, 2), 3.3)).sum().backward()
    assert sorted(network.learnt_weights()) == ["conv.bias", "conv.weight"]
    assert network.learnt_amax() == {"images": pytest.approx(12.7)}
    assert all(p.grad is not None for p in network.parameters())
    frozen = OnnxNetwork(_conv_model(True), _conv_model(False), learn_scales=False)
    assert not any(p.requires_grad for p in frozen.octaves.parameters())


def test_what_cannot_be_trained_is_named():
    with pytest.raises(ModelError, match=r"'last' is a Erf"):
        OnnxNetwork(_conv_model(False, op="Erf"), _conv_model(False))
    with pytest.raises(ModelError, match=r"'q' does not quantise symmetrically"):
        OnnxNetwork(_conv_model(True, zero=3), _conv_model(False))
    other = _conv_model(False)
    other.graph.node[0].name = "another"
    with pytest.raises(ModelError, match="made of another model"):
        OnnxNetwork(_conv_model(True), other)


def test_a_shipped_detector_computes_what_onnxruntime_computes():
    model = onnx.load(str(recipes.find("head-n", None)[0]))
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 96)).astype(np.float32)
    with torch.no_grad():
        got = OnnxNetwork(model, model)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(got, _in_onnxruntime(model, images), atol=2e-3)
