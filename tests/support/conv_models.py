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


def yolox_like(path: Path, *, side: int = 416, classes: int = 80) -> Path:
    """Write a detector as YOLOX's own exporter does: opset 11, fixed shape, not decoded.

    (1, 3, side, side) → (1, cells, 5 + classes) over strides 8, 16 and 32. It begins by
    slicing the picture into four, scales a level up, and lists its weights as inputs, as old
    exporters do.
    """
    graph = _Graph()
    level = graph.silu(graph.conv("stem", graph.focus("images"), 12, _CHANNELS))
    levels = []
    for stage in range(4):
        level = graph.silu(graph.conv(f"stage.{stage}", level, _CHANNELS, _CHANNELS, stride=2))
        levels.append(level)
    levels = levels[1:]
    pooled = graph.node("MaxPool", [levels[-1]], kernel_shape=[5, 5], pads=[2] * 4)
    wider = graph.node("Concat", [levels[-2], graph.upscaled("up", pooled)], axis=1)
    levels[-2] = graph.silu(graph.conv("neck", wider, 2 * _CHANNELS, _CHANNELS, size=1))
    rows = [graph.yolox_level(f"head.{i}", source, classes) for i, source in enumerate(levels)]
    joined = graph.node("Concat", rows, axis=2)
    graph.node("Transpose", [joined], "output", perm=[0, 2, 1])
    cells = sum((side // stride) ** 2 for stride in (8, 16, 32))
    shapes = [1, 3, side, side], [1, cells, 5 + classes]
    return graph.save(path, *shapes, opset=11, weights_as_inputs=True)


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

    def focus(self, source: str) -> str:
        """Every second pixel of every second row, four times, as channels."""
        step = self.constant("focus.step", np.array([2, 2]))
        axes = self.constant("focus.axes", np.array([2, 3]))
        end = self.constant("focus.end", np.array([2**31 - 1] * 2))
        starts = [self.constant(f"focus.{y}{x}", np.array([y, x])) for y in (0, 1) for x in (0, 1)]
        parts = [self.node("Slice", [source, start, end, axes, step]) for start in starts]
        return self.node("Concat", parts, axis=1)

    def upscaled(self, name: str, source: str) -> str:
        """Twice as wide and high; opset 11 wants a region, even where it means nothing."""
        region = self.constant(f"{name}.region", np.array([], np.float32))
        scales = self.constant(f"{name}.scales", np.array([1, 1, 2, 2], np.float32))
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", [source, region, scales], mode="nearest", **how)

    def yolox_level(self, name: str, source: str, classes: int) -> str:
        """Box, objectness and classes of each cell, (1, 5 + classes, cells)."""
        box, confidence, kind = (
            self.conv(f"{name}.{part}", source, _CHANNELS, planes, size=1)
            for part, planes in (("box", 4), ("objectness", 1), ("classes", classes))
        )
        parts = [box, self.node("Sigmoid", [confidence]), self.node("Sigmoid", [kind])]
        shape = self.constant(f"{name}.shape", np.array([1, 5 + classes, -1]))
        return self.node("Reshape", [self.node("Concat", parts, axis=1), shape])

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
             opset: int, weights_as_inputs: bool = False) -> Path:  # fmt: skip
        listed = self._weights if weights_as_inputs else []
        more = [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in listed]
        graph = helper.make_graph(
            self._nodes,
            "detector",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, input_shape), *more],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, output_shape)],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        onnx.save(model, str(path))
        return path
