"""Wrong files are one clear sentence each."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import conv_models

from edgecount.errors import ModelError
from edgecount.infer.tensorrt.versions import Version
from edgecount.toolchain.build.onnx_file import opset_note, read


def relu(path: Path, opset: int, inputs=("x",), shape=(1, 3, 8, 8)) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def test_a_sound_file(tmp_path) -> None:
    file = read(conv_models.yolov8_like(tmp_path / "m.onnx"))
    assert file.input_shape == ("batch", 3, "height", "width")
    assert not file.quantised
    assert file.upgraded_from is None


def test_a_quantised_file_is_seen(tmp_path) -> None:
    source = conv_models.yolov8_like(tmp_path / "m.onnx")
    assert read(conv_models.with_qdq(source, tmp_path / "q.onnx")).quantised


def test_an_old_one_is_upgraded_and_keeps_its_metadata(tmp_path) -> None:
    path = relu(tmp_path / "m.onnx", 11)
    model = onnx.load(str(path))
    helper.set_model_props(model, {"names": "{0: 'head'}"})
    onnx.save(model, str(path))
    file = read(path)
    assert file.upgraded_from == 11
    assert file.model.opset_import[0].version == 13
    assert file.model.metadata_props[0].key == "names"


@pytest.mark.parametrize("content", [b"", b"hello world, this is no ONNX" * 9, b"\x08\x07"])
def test_what_is_no_onnx(tmp_path, content) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx is no ONNX file, or a damaged one"):
        read(path)


def test_a_file_cut_short(tmp_path) -> None:
    path = conv_models.yolov8_like(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"m\.onnx is no ONNX file, or a damaged one"):
        read(path)


def test_a_missing_file(tmp_path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        read(tmp_path / "m.onnx")


def test_an_upgraded_yolox_computes_the_same(tmp_path) -> None:
    path = conv_models.yolox_like(tmp_path / "m.onnx", side=64)
    file = read(path)
    assert (file.upgraded_from, file.input_shape) == (11, (1, 3, 64, 64))
    picture = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 64)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of each weight that is an input
    before, after = (
        onnxruntime.InferenceSession(data, options).run(None, {"images": picture})[0]
        for data in (path.read_bytes(), file.model.SerializeToString())
    )
    assert before.shape == (1, 84, 85)
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("opset", [5, 99])
def test_a_wrong_opset(tmp_path, opset) -> None:
    with pytest.raises(ModelError, match=rf"of opset {opset}; 7 to \d+ can be read.*opset 13"):
        read(relu(tmp_path / "m.onnx", opset))


def test_two_inputs(tmp_path) -> None:
    with pytest.raises(ModelError, match="has 2 inputs; a detector has one"):
        read(relu(tmp_path / "m.onnx", 13, inputs=("x", "z")))


def test_no_picture(tmp_path) -> None:
    with pytest.raises(ModelError, match="2 axes"):
        read(relu(tmp_path / "m.onnx", 13, shape=(1, 3)))


@pytest.mark.parametrize("zero", [np.int8(3), np.uint8(128), np.array([0, 0, 7, 0], np.int8)])
def test_a_zero_point_that_is_not_zero(tmp_path, zero) -> None:
    source = conv_models.yolov8_like(tmp_path / "m.onnx")
    path = conv_models.with_qdq(source, tmp_path / "q.onnx")
    model = onnx.load(str(path))
    for i, weight in enumerate(model.graph.initializer):
        if weight.name == "qdq.zero":
            model.graph.initializer[i].CopyFrom(numpy_helper.from_array(zero, weight.name))
    onnx.save(model, str(path))
    with pytest.raises(
        ModelError, match=r"quantised asymmetrically: QuantizeLinear images\.Q has the zero point"
    ):
        read(path)


def test_a_zero_point_in_a_constant_node(tmp_path) -> None:
    source = conv_models.yolov8_like(tmp_path / "m.onnx")
    path = conv_models.with_qdq(source, tmp_path / "q.onnx")
    model = onnx.load(str(path))
    kept = [i for i in model.graph.initializer if i.name != "qdq.zero"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    value = numpy_helper.from_array(np.int8(-5), "z")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["qdq.zero"], "z", value=value))
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match="has the zero point -5"):
        read(path)


def test_a_file_newer_than_the_parser_is_told(tmp_path) -> None:
    file = read(relu(tmp_path / "m.onnx", 17))
    assert opset_note(file, Version("tensorrt", (8, 6, 2))) == ""
    assert opset_note(file, Version("tensorrt", (10, 3, 0))) == ""
    note = opset_note(file, Version("tensorrt", (8, 2, 1)))
    assert note.endswith("TensorRT 8.2.1 reads opset 13 at most: export it with opset 13")
