from pathlib import Path
from typing import Any, Dict, List, Set

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.onnx_graphs import Builder

from edgecount.infer import cpu_features, openvino
from edgecount.infer.openvino import OpenVinoNetwork
from edgecount.infer.openvino_graph import fold_quantisation
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.reference import SessionNetwork, differences
from edgecount.toolchain.quantize.table import CalibrationTable

pytestmark = pytest.mark.skipif(
    openvino.installed_version() is None, reason="OpenVINO is not installed"
)
MOST = 100.0  # nothing is clipped


def quantised(amax: float = MOST) -> onnx.ModelProto:
    """Two branches that a Concat joins: the form whose tensors OpenVINO alone gets wrong."""
    b = Builder(channels=8, size=6)
    left = b.node("Relu", [b.conv("x", "a", (8, 8), 3)], "a.act")
    right = b.node("Relu", [b.conv("x", "b", (8, 8), 3)], "b.act")
    joined = b.node("Concat", [left, right], "joined", axis=1)
    model = b.model(b.conv(joined, "c", (16, 8), 1))
    ranges = {"x": 4.0, "a.act": amax, "b.act": amax, "joined": amax}
    return write_qdq(model, CalibrationTable("", "minmax", 1, "", {}, ranges))


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    return path


def read(path: Path) -> Any:
    return openvino.load().Core().read_model(str(path))


def ranges(model: Any) -> Dict[str, List[float]]:
    """Ends of each FakeQuantize of an activation, by what it reads."""
    found = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            source = node.input_value(0).get_node()
            if source.get_type_name() != "Constant":
                ends = [np.asarray(node.input_value(i).get_node().data).item() for i in (1, 2)]
                found[source.get_friendly_name()] = ends
    return found


def pictures(count: int) -> List["np.ndarray"]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 8, 6, 6)).astype(np.float32) for _ in range(count)]


def convolutions(network: OpenVinoNetwork) -> Set[str]:
    """Types of the weights that the convolutions compute with."""
    compiled = network._compile((1, 8, 6, 6)).model
    kinds = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        about = {key: node.get_rt_info()[key].value for key in ("layerType", "runtimePrecision")}
        if "Convolution" in about["layerType"]:
            kinds[node.get_friendly_name()] = about["runtimePrecision"]
    return {str(kind).lower() for kind in kinds.values()}


def test_each_pair_becomes_one_node(tmp_path: Path) -> None:
    model = read(saved(quantised(), tmp_path))
    before = ranges(model)
    assert fold_quantisation(openvino.load(), model) == len(before) > 0
    assert len(ranges(model)) == len(before)
    kinds = [node.get_type_name() for node in model.get_ordered_ops()]
    assert fold_quantisation(openvino.load(), model) == 0
    assert [node.get_type_name() for node in model.get_ordered_ops()] == kinds


def test_what_is_never_negative_gets_the_unsigned_range(tmp_path: Path) -> None:
    model = read(saved(quantised(), tmp_path))
    fold_quantisation(openvino.load(), model)
    found = ranges(model)
    step = MOST / 127
    assert found.pop("x") == pytest.approx([-128 * 4.0 / 127, 4.0], rel=1e-5)
    assert list(found.values()) == [pytest.approx([0.0, 255 * step], rel=1e-5)] * len(found)


def test_uint8_with_a_zero_point_keeps_its_range(tmp_path: Path) -> None:
    proto = quantised()
    for stored in proto.graph.initializer:
        if stored.name == "x.zero_point":
            stored.CopyFrom(numpy_helper.from_array(np.array(120, np.uint8), stored.name))
    model = read(saved(proto, tmp_path))
    fold_quantisation(openvino.load(), model)
    step = 4.0 / 127
    assert ranges(model)["x"] == pytest.approx([-120 * step, 135 * step], rel=1e-5)


def test_another_scale_on_the_way_back_is_left_alone(tmp_path: Path) -> None:
    proto = quantised()
    doubled = numpy_helper.from_array(np.array(2 * 4.0 / 127, np.float32), "doubled")
    proto.graph.initializer.append(doubled)
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == "x.quantized":
            node.input[1] = "doubled"
    model = read(saved(proto, tmp_path))
    before = len(ranges(model))
    assert fold_quantisation(openvino.load(), model) == before - 1


def test_the_output_is_that_of_the_file_as_written(tmp_path: Path) -> None:
    path = saved(quantised(), tmp_path)
    network, reference = OpenVinoNetwork(path), SessionNetwork(path, fuse=False)
    batches = pictures(8)
    wanted = np.concatenate([reference.run(batch) for batch in batches])
    got = np.concatenate([network.run(batch) for batch in batches])
    assert differences(wanted, got, 1).steps_max <= 1.0


def test_where_products_would_saturate_it_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without integer kernels nothing is rounded but by the file: the same to float32's."""
    avx2 = cpu_features.CpuFeatures("old", frozenset({"avx2"}))
    monkeypatch.setattr(cpu_features, "read", lambda: avx2)
    path = saved(quantised(), tmp_path)
    network, reference = OpenVinoNetwork(path), SessionNetwork(path, fuse=False)
    batch = pictures(1)[0]
    assert differences(reference.run(batch), network.run(batch), 1).steps_max <= 1.0
    assert convolutions(network) == {"f32"}
    monkeypatch.undo()
    if not cpu_features.read().saturates:
        assert convolutions(OpenVinoNetwork(path)) == {"u8"}
