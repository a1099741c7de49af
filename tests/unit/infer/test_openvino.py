import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import List

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import onnx_models
from support.onnx_models import Box, graph_model, value

from edgecount.errors import EngineError, MissingExtraError, ModelError
from edgecount.infer import openvino
from edgecount.infer.onnxruntime import OrtNetwork
from edgecount.infer.openvino import OpenVinoNetwork

needs_openvino = pytest.mark.skipif(
    openvino.installed_version() is None, reason="OpenVINO is not installed"
)
SHAPE = (1, 3, 64, 64)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return onnx_models.constant_model(tmp_path / "model.onnx", "yolov8", [Box(1, 1, 9, 9)])


@pytest.fixture
def spots(tmp_path: Path) -> Path:
    return onnx_models.spot_model(tmp_path / "spots.onnx", "yolov8")


def picture(seed: int, side: int = 64) -> "np.ndarray":
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 255, (1, 3, side, side)).astype(np.float32)


@needs_openvino
def test_shapes_and_output_are_those_of_onnx_runtime(model: Path) -> None:
    network, other = OpenVinoNetwork(model), OrtNetwork(model)
    assert network.input_shape == other.input_shape
    assert network.output_shape == other.output_shape
    output = network.run(picture(0))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, other.run(picture(0)), rtol=1e-5, atol=1e-5)


@needs_openvino
def test_a_dynamic_axis_is_not_an_int(tmp_path: Path) -> None:
    path = onnx_models.constant_model(tmp_path / "model.onnx", "yolov8", [], dynamic=True)
    network = OpenVinoNetwork(path)
    assert [isinstance(x, int) for x in network.input_shape] == [False, True, False, False]
    assert [isinstance(x, int) for x in network.output_shape[1:]] == [True, False]


@needs_openvino
def test_sizes_may_change_where_the_file_leaves_a_choice(tmp_path: Path) -> None:
    path = onnx_models.constant_model(tmp_path / "model.onnx", "yolov8", [], dynamic=True)
    network, other = OpenVinoNetwork(path), OrtNetwork(path)
    for side in (64, 96, 64):
        batch = picture(side, side)
        np.testing.assert_allclose(network.run(batch), other.run(batch), atol=1e-5)


@needs_openvino
def test_runs_from_several_threads_do_not_mix(spots: Path) -> None:
    network, other = OpenVinoNetwork(spots, calls=2), OrtNetwork(spots)
    side = network.input_shape[2]
    assert isinstance(side, int)
    batches = [picture(seed, side) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(network.run, batches))
    for batch, output in zip(batches, outputs):
        np.testing.assert_allclose(output, other.run(batch), rtol=1e-4, atol=1e-4)


@needs_openvino
def test_an_output_outlives_the_next_run(spots: Path) -> None:
    network = OpenVinoNetwork(spots)
    side = network.input_shape[2]
    assert isinstance(side, int)
    first = network.run(picture(0, side))
    kept = first.copy()
    second = network.run(picture(1, side))
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


@needs_openvino
def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*gone\.onnx"):
        OpenVinoNetwork(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="no file"):
        OpenVinoNetwork(tmp_path)


@needs_openvino
@pytest.mark.parametrize("content", [b"\x00", b"GIF89a, or whatever", b"\xff" * 500])
def test_a_file_that_is_no_onnx_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot load .*model\.onnx") as caught:
        OpenVinoNetwork(path)
    assert "\n" not in str(caught.value)


@needs_openvino
def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        OpenVinoNetwork(tmp_path / "model.onnx")


@needs_openvino
def test_an_operator_that_this_runtime_lacks(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"])
    path = graph_model(tmp_path / "model.onnx", [node], [value("x", [1])], [value("y", [1])])
    with pytest.raises(ModelError, match=r"model\.onnx.*Frobnicate"):
        OpenVinoNetwork(path)


@needs_openvino
def test_several_inputs(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    inputs = [value("a", [1]), value("b", [1])]
    path = graph_model(tmp_path / "model.onnx", [node], inputs, [value("y", [1])])
    with pytest.raises(ModelError, match=r"model\.onnx has 2 inputs"):
        OpenVinoNetwork(path)


@needs_openvino
def test_inputs_and_outputs_that_are_not_float32(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)
    shape: List[object] = [1, 3, 32, 32]
    half = [value("y", shape, TensorProto.FLOAT16)]
    path = graph_model(tmp_path / "model.onnx", [node], [value("x", shape)], half)
    with pytest.raises(ModelError, match="gives f16; edgecount decodes float32"):
        OpenVinoNetwork(path)
    bytes_in = [value("x", shape, TensorProto.UINT8)]
    path = graph_model(tmp_path / "model.onnx", [node], bytes_in, half)
    with pytest.raises(ModelError, match="takes u8; edgecount feeds float32"):
        OpenVinoNetwork(path)


@needs_openvino
def test_a_batch_of_the_wrong_shape_is_an_engine_error(model: Path) -> None:
    network = OpenVinoNetwork(model)
    with pytest.raises(EngineError, match=r"model\.onnx takes \[1, 3, 64, 64\], not"):
        network.run(np.zeros((1, 3, 32, 32), np.float32))
    assert network.run(np.zeros(SHAPE, np.float32)).shape == (1, 5, 84)


@needs_openvino
def test_a_size_that_the_network_cannot_take_is_an_engine_error(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    graph = helper.make_graph(
        [node],
        "graph",
        [value("x", [1, 3, "h", "w"])],
        [value("y", [1, 48])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [1, 48])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path))
    network = OpenVinoNetwork(path)
    with pytest.raises(EngineError, match=r"OpenVINO failed in .*model\.onnx") as caught:
        network.run(np.zeros((1, 3, 5, 5), np.float32))
    assert "\n" not in str(caught.value)
    assert network.run(np.zeros((1, 3, 4, 4), np.float32)).shape == (1, 48)


@needs_openvino
def test_loading_it_does_not_load_the_converter_that_reports_to_its_maker() -> None:
    import subprocess

    code = (
        "import sys; from edgecount.infer import openvino; openvino.load(); "
        "print([m for m in sys.modules if 'ovc' in m or 'telemetry' in m])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"edgecount\[openvino\]"):
        openvino.load()
    assert sys.modules.get("openvino.tools.ovc", openvino) is not None


def test_a_converter_that_somebody_uses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    used = ModuleType("openvino.tools.ovc")
    monkeypatch.setitem(sys.modules, "openvino.tools.ovc", used)
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    openvino.load()
    assert sys.modules["openvino.tools.ovc"] is used
