from pathlib import Path
from typing import List

import numpy as np
import pytest
from onnx import TensorProto, helper
from support import onnx_models
from support.onnx_models import Box, graph_model, value

from edgecount.errors import EngineError, ModelError
from edgecount.infer.onnxruntime import OrtNetwork, open_network


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return onnx_models.constant_model(
        tmp_path / "model.onnx", "yolov8", [Box(1, 1, 9, 9)], metadata={"names": "{0: 'head'}"}
    )


def test_shapes_metadata_and_output(model: Path) -> None:
    network, metadata = open_network(model)
    assert network.input_shape == (1, 3, 64, 64)
    assert network.output_shape == (1, 5, 84)
    assert metadata == {"names": "{0: 'head'}"}
    output = network.run(np.zeros((1, 3, 64, 64), np.float32))
    assert (output.shape, output.dtype) == ((1, 5, 84), np.float32)


def test_a_dynamic_axis_is_not_an_int(tmp_path: Path) -> None:
    path = onnx_models.constant_model(tmp_path / "model.onnx", "yolov8", [], dynamic=True)
    network = OrtNetwork(path)
    assert [isinstance(x, int) for x in network.input_shape] == [False, True, False, False]
    assert [isinstance(x, int) for x in network.output_shape[1:]] == [True, False]


def test_runs_from_several_threads_agree(model: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    network = OrtNetwork(model)
    batch = np.ones((1, 3, 64, 64), np.float32)
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: network.run(batch), range(20)))
    assert all(np.array_equal(o, outputs[0]) for o in outputs)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load .*gone\.onnx"):
        OrtNetwork(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"\x00", b"GIF89a, or whatever", b"\xff" * 500])
def test_a_file_that_is_no_onnx_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot load .*model\.onnx"):
        OrtNetwork(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(model: Path, kept: float) -> None:
    whole = model.read_bytes()
    model.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ModelError, match=r"cannot load .*model\.onnx"):
        OrtNetwork(model)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        OrtNetwork(tmp_path)


def test_an_operator_that_this_runtime_lacks(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"])
    path = graph_model(tmp_path / "model.onnx", [node], [value("x", [1])], [value("y", [1])])
    with pytest.raises(ModelError, match=r"(?s)model\.onnx.*Frobnicate"):
        OrtNetwork(path)


def test_several_inputs(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    path = graph_model(
        tmp_path / "model.onnx", [node], [value("a", [1]), value("b", [1])], [value("y", [1])]
    )
    with pytest.raises(ModelError, match=r"model\.onnx has 2 inputs"):
        OrtNetwork(path)


@pytest.mark.parametrize(
    ("kind", "name"), [(TensorProto.FLOAT16, "float16"), (TensorProto.UINT8, "uint8")]
)
def test_an_input_that_is_not_float32(tmp_path: Path, kind: int, name: str) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    shape: List[object] = [1, 3, 32, 32]
    path = graph_model(
        tmp_path / "model.onnx", [node], [value("x", shape, kind)], [value("y", shape, kind)]
    )
    with pytest.raises(ModelError, match=rf"takes tensor\({name}\); edgecount feeds float32"):
        OrtNetwork(path)


def test_an_output_that_is_not_float32(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)
    shape: List[object] = [1, 3, 32, 32]
    path = graph_model(
        tmp_path / "model.onnx",
        [node],
        [value("x", shape)],
        [value("y", shape, TensorProto.FLOAT16)],
    )
    with pytest.raises(ModelError, match=r"gives tensor\(float16\); edgecount decodes float32"):
        OrtNetwork(path)


def test_a_batch_of_the_wrong_shape_is_an_engine_error(model: Path) -> None:
    network = OrtNetwork(model)
    with pytest.raises(EngineError, match=r"model\.onnx"):
        network.run(np.zeros((1, 3, 32, 32), np.float32))
    assert network.run(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 5, 84)


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        OrtNetwork(tmp_path / "gone.onnx")
    assert "\n" not in str(caught.value)
