"""Small graphs in a line or two, to quantise by hand."""

from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_IR_VERSION = 8


class Builder:
    """Adds nodes one after the other; each is named after its operator's output."""

    def __init__(self, channels: int = 2, size: int = 4, opset: int = 13) -> None:
        self.nodes: list = []
        self.constants: Dict[str, np.ndarray] = {}
        self._shape = ["batch", channels, size, size]
        self._opset = opset
        self._random = np.random.default_rng(0)

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def conv(
        self, source: str, name: str, channels: Tuple[int, int] = (2, 2), kernel: int = 1
    ) -> str:
        """A convolution whose weights are random, and its bias zero."""
        into, out = channels
        shape = (out, into, kernel, kernel)
        self.constants[f"{name}.w"] = self._random.normal(size=shape).astype(np.float32)
        self.constants[f"{name}.b"] = np.zeros(out, np.float32)
        pads = [kernel // 2] * 4
        return self.node("Conv", [source, f"{name}.w", f"{name}.b"], name, pads=pads)

    def silu(self, source: str) -> str:
        gate = self.node("Sigmoid", [source], f"{source}.sigmoid")
        return self.node("Mul", [source, gate], f"{source}.act")

    def model(self, *outputs: str, metadata: Optional[Dict[str, str]] = None) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self._shape)],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
        model.ir_version = _IR_VERSION
        helper.set_model_props(model, metadata or {})
        return model


def reads(model: onnx.ModelProto) -> Dict[str, list]:
    """Node → what it reads: a tensor's name, with ``q:`` before it where through Q/DQ."""
    made = {o: n for n in model.graph.node for o in n.output}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            found[node.name] = [_through(name, made) for name in node.input]
    return found


def scale_of(model: onnx.ModelProto, tensor: str) -> np.ndarray:
    """The scale that a tensor is quantised with."""
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    (node,) = [
        n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor
    ]
    assert constants[node.input[2]].dtype == np.int8
    assert not constants[node.input[2]].any()
    return constants[node.input[1]]


def _through(name: str, made: Dict[str, onnx.NodeProto]) -> str:
    maker = made.get(name)
    if maker is None or maker.op_type != "DequantizeLinear":
        return name
    return f"q:{made[maker.input[0]].input[0]}"
