from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.channel_model import SIDE, channel_model

from edgecount.errors import EngineError, ModelError
from edgecount.toolchain.quantize import watched
from edgecount.toolchain.quantize.watched import WatchedNetwork


@pytest.fixture
def model(tmp_path: Path):
    return onnx.load(str(channel_model(tmp_path / "channels.onnx")))


def batch(*channels):
    made = np.empty((1, 3, SIDE, SIDE), np.float32)
    made[0] = np.array(channels, np.float32)[:, None, None]
    return made


def test_lists_activations_in_the_order_of_the_graph_without_weights(model):
    assert watched.float_tensors(model) == ["images", "mixed", "positive", "output"]


def test_lists_what_quantisable_operators_read(model):
    assert watched.tensors_read(model) == ["images", "positive"]
    assert watched.tensors_read(model, ("Relu",)) == ["mixed"]


def test_integers_and_constants_are_no_activations(model):
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["output"], ["shape"]),
            helper.make_node("Constant", [], ["two"], value_float=2.0),
            helper.make_node("Mul", ["output", "two"], ["twice"]),
        ]
    )
    assert watched.float_tensors(model)[4:] == ["twice"]


def test_hands_out_activations_in_the_order_of_the_graph(model):
    network = WatchedNetwork(model, ["positive", "images", "mixed"])
    assert network.watched == ["images", "mixed", "positive"]
    images, mixed, positive = network.activations(batch(1, 2, 3))
    assert images[0, :, 0, 0].tolist() == [1, 2, 3]
    assert mixed[0, :, 5, 5].tolist() == [1, -4]
    assert positive[0, :, 5, 5].tolist() == [1, 0]


def test_is_the_network_too_and_leaves_the_model_alone(model):
    before = model.SerializeToString()
    network = WatchedNetwork(model, ["mixed"])
    assert network.run(batch(1, 2, 3))[0, 0, 0, 0] == 2
    assert network.input_shape == ("batch", 3, SIDE, SIDE)
    assert network.output_shape == ("batch", 1, SIDE, SIDE)
    assert model.SerializeToString() == before


def test_only_the_input_needs_no_run(model):
    (images,) = WatchedNetwork(model, ["images"]).activations(batch(1, 2, 3))
    assert images.shape == (1, 3, SIDE, SIDE)


def test_makers_are_named(model):
    assert WatchedNetwork(model, []).makers["positive"] == "Relu node 'act'"


def test_an_unknown_tensor_is_named(model):
    with pytest.raises(ModelError, match=r"no float32 activation 'other' \(1 of 2"):
        WatchedNetwork(model, ["mixed", "other"])


def test_a_batch_of_another_size_is_an_engine_error(model):
    network = WatchedNetwork(model, [])
    with pytest.raises(EngineError, match=r"on a batch of 1 \("):
        network.run(np.zeros((1, 3, SIDE, SIDE + 1), np.float32))
    with pytest.raises(EngineError, match="on a batch of 2: it may be made for a batch of 1"):
        network.run(np.zeros((2, 3, SIDE, SIDE + 1), np.float32))


def test_what_onnxruntime_cannot_load(model):
    model.graph.node[1].op_type = "Rely"
    with pytest.raises(ModelError, match=r"ONNX Runtime \S+ cannot load"):
        WatchedNetwork(model, [])


class TestLoad:
    def test_the_hash_is_the_files(self, tmp_path):
        path = channel_model(tmp_path / "m.onnx")
        assert watched.load(path)[1] == sha256(path.read_bytes()).hexdigest()

    def test_a_model_in_memory_has_a_hash_too(self, model):
        assert watched.load(model)[1] == watched.load(model)[1]
        assert len(watched.load(model)[1]) == 64

    def test_a_quantised_model_is_refused_by_its_node(self, model):
        model.graph.node.append(
            helper.make_node("DequantizeLinear", ["images", "s"], ["d"], "head.DQ")
        )
        with pytest.raises(ModelError, match=r"DequantizeLinear node 'head\.DQ'.*FP32 file"):
            watched.load(model)

    def test_an_fp16_model_is_refused(self, tmp_path):
        half = channel_model(tmp_path / "half.onnx", elem_type=TensorProto.FLOAT16)
        with pytest.raises(ModelError, match=r"takes FLOAT16.*FP32 file"):
            watched.load(half)

    def test_a_file_that_is_none(self, tmp_path):
        (tmp_path / "m.onnx").write_bytes(b"\x00nothing")
        for name, told in (
            ("m.onnx", r"m\.onnx is no ONNX file"),
            ("x.onnx", r"cannot read .*x\.onnx"),
        ):
            with pytest.raises(ModelError, match=told):
                watched.load(tmp_path / name)
