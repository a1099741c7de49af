"""Quantising detectors of other families, and rewriting what another tool quantised."""

import json
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper
from support import onnx_models

from edgecount.cli.main import cli
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.recipe import Recipe
from edgecount.toolchain.quantize.foreign import asymmetric_nodes
from edgecount.toolchain.quantize.model_file import find
from edgecount.toolchain.quantize.reference import SessionNetwork, outputs, signal_to_noise

pytest.importorskip("pycocotools")

SIDE = 96
SPOTS: List[List[Tuple[int, int]]] = [[(28, 28)], [(60, 60)], [(28, 68), (68, 28)], [(44, 44)]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures with bright spots, labelled."""
    return onnx_models.write_spot_data(tmp_path / "data", SPOTS, SIDE)


def yolov5_like(path: Path) -> Path:
    """A spot detector whose input goes through a convolution with SiLU, as YOLOv5's stem does.

    SiLU is nearly the identity where its input is large: the spots' levels are times 64.
    """
    onnx_models.spot_model(path, "yolov5", width=SIDE, height=SIDE)
    model = onnx.load(str(path))
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "images":
                node.input[index] = "back"
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    stored = {"up.w": 64 * eye, "down.w": eye / 64}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in stored.items())
    nodes = [
        helper.make_node("Conv", ["images", "up.w"], ["up"], "/model.0/conv/Conv"),
        helper.make_node("Sigmoid", ["up"], ["gate"], "/model.0/act/Sigmoid"),
        helper.make_node("Mul", ["up", "gate"], ["silu"], "/model.0/act/Mul"),
        helper.make_node("Conv", ["silu", "down.w"], ["back"], "/model.1/conv/Conv"),
        *model.graph.node,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))
    onnx_models.write_recipe(path, "yolov5", width=SIDE, height=SIDE)
    return path


def test_an_anchor_based_detector_is_quantised(tmp_path: Path, data: Path) -> None:
    model, out = yolov5_like(tmp_path / "five.onnx"), tmp_path / "five.int8.onnx"
    _, recipe = find(str(model))
    assert recipe.head == "yolov5"
    arguments = ["--model", str(model), "--images", str(data), "--data", str(data)]
    result = CliRunner().invoke(
        cli, ["quantize", *arguments, "--scene", str(data), "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["fp32"] == pytest.approx(100.0)
    assert told["final"]["ap50"] == pytest.approx(100.0)
    assert told["scale"] == {"slope": 1.0, "shift": 0.0}  # its scores are not told from boxes
    made = onnx.load(str(out))
    dequantised = {n.output[0] for n in made.graph.node if n.op_type == "DequantizeLinear"}
    convolutions = [n for n in made.graph.node if n.op_type == "Conv"]
    assert len(convolutions) == 2
    assert all(n.input[0] in dequantised for n in convolutions)


class Reader:
    """Pictures as ONNX Runtime's own quantiser wants them."""

    def __init__(self, inputs: List[np.ndarray]) -> None:
        self._inputs: Iterator[np.ndarray] = iter(inputs)

    def get_next(self) -> Optional[Dict[str, np.ndarray]]:
        value = next(self._inputs, None)
        return None if value is None else {"images": value}


def test_another_tools_file_of_a_real_detector_is_rewritten(tmp_path: Path) -> None:
    """Asymmetric uint8 by ONNX Runtime, then symmetric: nearly as much signal is left."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, recipe = find("head-n")
    picture = cv2.imread(str(path.parent / "images" / "hits.jpg"))
    inputs = [
        network_input(recipe, picture[y : y + 416, x : x + 416]) for x, y in ((0, 0), (300, 0))
    ]
    foreign, out = tmp_path / "foreign.onnx", tmp_path / "symmetric.onnx"
    quantization.quantize_static(
        str(path),
        str(foreign),
        Reader(inputs),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )
    result = CliRunner().invoke(
        cli, ["quantize", "--symmetric", "--model", str(foreign), "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert asymmetric_nodes(onnx.load(str(foreign)))
    assert not asymmetric_nodes(onnx.load(str(out)))
    fp32 = outputs(path, inputs)
    before, after = (signal_to_noise(fp32, outputs(file, inputs)) for file in (foreign, out))
    assert before > 8.0
    assert after > before - 6.1  # a bit less: 127 steps instead of 255


def network_input(recipe: Recipe, picture: np.ndarray) -> np.ndarray:
    size = recipe.input.width, recipe.input.height
    thresholds = Thresholds(recipe.low_threshold, recipe.nms_iou)
    network = SessionNetwork(find("head-n")[0], fuse=False)
    return OnnxDetector(network, recipe, size=size, thresholds=thresholds).network_input(picture)
