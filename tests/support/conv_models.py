"""Small but real convolutional detectors, for tests that build and quantise networks."""

from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CHANNELS = 8


def yolov8_like(path: Path, *, classes: int = 2, opset: int = 13, relu: bool = False) -> Path:
    """Write a detector in YOLOv8's layout, (B, 4 + C, cells), with B, H and W open.

    Strided convolutions with SiLU (or Relu) down to three levels, a 1×1 convolution on each,
    boxes by exp, scores by sigmoid: what a real export is made of, with random weights.
    """
    graph = _Graph()
    level = "images"
    planes = 3
    levels = []
    for stage in range(5):
        level = graph.conv(f"backbone.{stage}", level, planes, _CHANNELS, stride=2)
        level = graph.node("Relu", [level]) if relu else graph.silu(level)
        planes = _CHANNELS
        if stage >= 2:
            levels.append(level)
    flat = [graph.flat(f"head.{i}", source, 4 + classes) for i, source in enumerate(levels)]
    joined = graph.node("Concat", flat, axis=2)
    boxes, scores = graph.split(joined, 4, classes)
    graph.node("Concat", [graph.node("Exp", [boxes]), graph.node("Sigmoid", [scores])], "output",
               axis=1)  # fmt: skip
    return graph.save(path, ["batch", 3, "height", "width"], ["batch", 4 + classes, "cells"], opset)


def with_qdq(source: Path, path: Path, activation: float = 0.05) -> Path:
    """Write ``source`` with Q/DQ on the input and the weights of every convolution.

    One scale for all activations: enough to build, not to detect.
    """
    model = onnx.load(str(source))
    weights = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    model.graph.initializer.append(_array("qdq.scale", np.float32(activation)))
    model.graph.initializer.append(_array("qdq.zero", np.int8(0)))
    nodes: List[onnx.NodeProto] = []
    done: Dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            for i in (0, 1):
                name = node.input[i]
                if name not in done:
                    made, done[name] = _pair(model, name, weights.get(name))
                    nodes.extend(made)
                node.input[i] = done[name]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def _pair(
    model: onnx.ModelProto, name: str, weight: "Optional[np.ndarray]"
) -> Tuple[List[onnx.NodeProto], str]:
    scale, zero, axis = "qdq.scale", "qdq.zero", {}
    if weight is not None:
        scale, zero, axis = f"{name}.scale", f"{name}.zero", {"axis": 0}
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        scales = np.maximum(largest, 1e-6).astype(np.float32) / 127
        model.graph.initializer.append(_array(scale, scales))
        model.graph.initializer.append(_array(zero, np.zeros(len(weight), np.int8)))
    quantised, restored = f"{name}.q", f"{name}.dq"
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [quantised], f"{name}.Q", **axis),
        helper.make_node(
            "DequantizeLinear", [quantised, scale, zero], [restored], f"{name}.DQ", **axis
        ),
    ], restored


def _array(name: str, value: "np.ndarray") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


class _Graph:
    def __init__(self) -> None:
        self._nodes: List[onnx.NodeProto] = []
        self._weights: List[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def node(self, op: str, inputs: List[str], output: str = "", **attributes: object) -> str:
        output = output or f"t{len(self._nodes)}"
        name = f"{op}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def constant(self, name: str, value: "np.ndarray") -> str:
        self._weights.append(_array(name, value))
        return name

    def conv(self, name: str, source: str, have: int, want: int, *, size: int = 3,
             stride: int = 1) -> str:  # fmt: skip
        weight = self._random.normal(0, 0.2, (want, have, size, size)).astype(np.float32)
        inputs = [source, self.constant(f"{name}.weight", weight)]
        inputs.append(self.constant(f"{name}.bias", np.zeros(want, np.float32)))
        output = f"{name}.out"
        pads = [size // 2] * 4
        self._nodes.append(
            helper.make_node("Conv", inputs, [output], name, strides=[stride] * 2, pads=pads)
        )
        return output

    def silu(self, source: str) -> str:
        return self.node("Mul", [source, self.node("Sigmoid", [source])])

    def flat(self, name: str, source: str, planes: int) -> str:
        out = self.conv(name, source, _CHANNELS, planes, size=1)
        shape = self.constant(f"{name}.shape", np.array([0, planes, -1]))
        return self.node("Reshape", [out, shape])

    def split(self, source: str, *sizes: int) -> List[str]:
        axis = self.constant("split.axis", np.array([1]))
        parts, start = [], 0
        for size in sizes:
            bounds = [self.constant(f"split.{start}.{e}", np.array([e])) for e in
                      (start, start + size)]  # fmt: skip
            parts.append(self.node("Slice", [source, *bounds, axis]))
            start += size
        return parts

    def save(self, path: Path, input_shape: List[object], output_shape: List[object],
             opset: int) -> Path:  # fmt: skip
        graph = helper.make_graph(
            self._nodes,
            "detector",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, output_shape)],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return path
