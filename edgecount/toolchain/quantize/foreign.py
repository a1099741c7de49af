"""Quantised models from elsewhere: find what TensorRT refuses, and rewrite it.

TensorRT reads symmetric INT8 only: zero points of 0. ONNX Runtime's own quantiser writes uint8
activations with other zero points unless it is told not to.
"""

from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgecount.errors import ModelError
from edgecount.toolchain.onnx_files import read_onnx
from edgecount.toolchain.quantize.table import LEVELS
from edgecount.toolchain.quantize.watched import describe

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_INTEGER = ("QLinearConv", "QLinearMatMul", "QLinearAdd", "ConvInteger", "MatMulInteger")
_RANGES = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
}
_DYNAMIC = "DynamicQuantizeLinear"


def asymmetric_nodes(model: onnx.ModelProto) -> List[onnx.NodeProto]:
    """The Q/DQ nodes whose zero point is not 0, or that are not INT8; in order."""
    constants = {i.name: i for i in model.graph.initializer}
    return [n for n in model.graph.node if n.op_type in _PAIR and not _is_symmetric(n, constants)]


def check_symmetric(model: onnx.ModelProto) -> None:
    """Check that TensorRT can read a quantised model.

    Raises:
        ModelError: It cannot; the message names the node, and what to do.
    """
    integer = next((n for n in model.graph.node if n.op_type in (*_INTEGER, _DYNAMIC)), None)
    if integer is not None:
        raise ModelError(
            f"{describe(integer)} is an integer operator, which TensorRT does not read: quantise "
            "again in the Q/DQ form (QuantFormat.QDQ), or start from the FP32 file with  "
            "edgecount quantize"
        )
    found = asymmetric_nodes(model)
    if found:
        raise ModelError(
            f"{describe(found[0])} is not symmetric INT8 ({len(found)} such nodes), which is all "
            "that TensorRT reads: rewrite the file with  edgecount quantize --symmetric  (some "
            "accuracy goes), or start from the FP32 file"
        )


def rewrite_file(model: Path, out: Path) -> List[str]:
    """Rewrite a file to symmetric Q/DQ. Returns what was changed, a line for each node.

    Raises:
        ModelError: The file cannot be read or rewritten.
    """
    symmetric, changes = to_symmetric(read_onnx(model))
    onnx.save(symmetric, str(out))
    return changes or [f"{model} is symmetric already"]


def to_symmetric(model: onnx.ModelProto) -> Tuple[onnx.ModelProto, List[str]]:
    """A copy whose Q/DQ are symmetric INT8, and what was changed.

    An activation's new range is the smallest symmetric one that holds the old. Constants are
    quantised anew, for each channel where they were so; INT32 biases become float32.

    Raises:
        ModelError: A scale is computed, or operators are integer ones.
    """
    integer = next((n for n in model.graph.node if n.op_type in (*_INTEGER, _DYNAMIC)), None)
    if integer is not None:
        check_symmetric(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rewriting = _Rewriting(copy)
    rewriting.run()
    return copy, rewriting.changes


def _is_symmetric(node: onnx.NodeProto, constants: Dict[str, onnx.TensorProto]) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        # Without a zero point the type is that of a stored input, else uint8.
        stored = constants.get(node.input[0])
        return node.op_type == "DequantizeLinear" and (
            stored is None or stored.data_type == TensorProto.INT8
        )
    zero = constants.get(node.input[2])
    return (
        zero is not None
        and zero.data_type == TensorProto.INT8
        and not numpy_helper.to_array(zero).any()
    )


class _Rewriting:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._constants = {i.name: i for i in model.graph.initializer}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self.changes: List[str] = []

    def run(self) -> None:
        kept = []
        for node in list(self._graph.node):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if copy.op_type not in _PAIR or _is_symmetric(copy, self._constants):
                kept.append(copy)
            elif copy.op_type == "DequantizeLinear" and copy.input[0] in self._constants:
                self._stored(copy, kept)
            else:
                kept += self._activation(copy)
        del self._graph.node[:]
        self._graph.node.extend(kept)
        del self._graph.value_info[:]
        read = {name for node in kept for name in node.input}
        for index in reversed(range(len(self._graph.initializer))):
            if self._graph.initializer[index].name not in read:
                del self._graph.initializer[index]

    def _activation(self, node: onnx.NodeProto) -> List[onnx.NodeProto]:
        """The node with a symmetric range, and before it what the old range did besides.

        A range that begins at 0 is a Relu, and quantisers leave out the Relu itself.
        """
        scale, zero, kind = self._parameters(node)
        low, high = _RANGES[kind]
        reach = np.maximum(zero - low, high - zero).astype(np.float32)
        self._set(node, (scale * reach / LEVELS).astype(np.float32))
        self.changes.append(f"{describe(node)}: zero point {zero.reshape(-1)[0]} → 0")
        source = self._makers.get(node.input[0])
        positive = source is not None and source.op_type == "Relu"
        if node.op_type != "QuantizeLinear" or (zero != low).any() or positive:
            return [node]
        made = f"{node.name or node.output[0]}.relu"
        relu = helper.make_node("Relu", [node.input[0]], [made], made)
        node.input[0] = made
        self.changes.append(f"{describe(node)}: Relu before it")
        return [relu, node]

    def _stored(self, node: onnx.NodeProto, kept: List[onnx.NodeProto]) -> None:
        """A constant that was quantised: symmetric INT8, or float32 where it is a bias."""
        scale, zero, kind = self._parameters(node)
        value = numpy_helper.to_array(self._constants[node.input[0]])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [1] * value.ndim
        if scale.ndim:
            shape[axis] = -1
        real = (value.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
        if kind == TensorProto.INT32:
            self._add(node.output[0], real.astype(np.float32))
            self.changes.append(f"{describe(node)}: INT32 → float32")
            return
        others = tuple(i for i in range(value.ndim) if not scale.ndim or i != axis % value.ndim)
        amax = np.abs(real).max(axis=others)
        fresh = np.where(amax > 0, amax / LEVELS, 1.0).astype(np.float32)
        codes = np.clip(np.rint(real / fresh.reshape(shape)), -LEVELS, LEVELS).astype(np.int8)
        name = f"{node.input[0]}.symmetric"
        self._add(name, codes)
        node.input[0] = name
        self._set(node, fresh)
        self.changes.append(f"{describe(node)}: constant quantised anew")
        kept.append(node)

    def _parameters(
        self, node: onnx.NodeProto
    ) -> Tuple[NDArray[np.float32], NDArray[np.int32], int]:
        """Scale, zero point, and the type of what is quantised."""
        scale = self._constants.get(node.input[1])
        given = node.input[2] if len(node.input) > 2 else ""
        zero = self._constants.get(given)
        if scale is None or (given and zero is None):
            raise ModelError(
                f"{describe(node)} computes its scale or zero point: such a file cannot be "
                "rewritten; start from the FP32 file with  edgecount quantize"
            )
        stored: Optional[onnx.TensorProto] = self._constants.get(node.input[0])
        kind = zero.data_type if zero is not None else TensorProto.UINT8
        if zero is None and node.op_type == "DequantizeLinear" and stored is not None:
            kind = stored.data_type
        value = numpy_helper.to_array(scale)
        point = np.zeros(value.shape) if zero is None else numpy_helper.to_array(zero)
        if kind not in (*_RANGES, TensorProto.INT32):
            raise ModelError(f"{describe(node)} is neither INT8 nor uint8: it cannot be rewritten")
        if value.size == 1:  # of all channels, whether it is written as a number or as a list
            value, point = value.reshape(()), point.reshape(())
        return value.astype(np.float32), point.astype(np.int32), kind

    def _set(self, node: onnx.NodeProto, scale: NDArray[np.float32]) -> None:
        base = node.name or node.output[0]
        del node.input[1:]
        for kind, value in (("scale", scale), ("zero_point", np.zeros(scale.shape, np.int8))):
            name = f"{base}.symmetric_{kind}"
            self._add(name, value)
            node.input.append(name)

    def _add(self, name: str, value: NDArray[np.generic]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        self._constants[name] = self._graph.initializer[-1]
