"""Write explicit quantisation into an ONNX file: one file for every runtime.

Q/DQ pairs stand where TensorRT can fuse them away (its developer guide, "Working with
quantised types", and Wu et al. 2020, *Integer quantization for deep learning inference*):
on the inputs and weights of convolutions and matrix products, and on the branch of an Add
that is not a convolution's own output. Nothing stands between a convolution, its norm and
its activation. All are symmetric, INT8, zero point 0; weights have a scale per output
channel and stay FP32 in the file, since TensorRT before 8.6 reads no INT8 constants.
"""

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgecount.errors import ModelError
from edgecount.infer.precision import METADATA_KEY
from edgecount.toolchain.onnx_files import leave_note
from edgecount.toolchain.quantize import graph as graphs
from edgecount.toolchain.quantize.half import to_half
from edgecount.toolchain.quantize.precision import (
    QUANTISABLE,
    Precision,
    PrecisionRules,
    layers,
    precisions,
)
from edgecount.toolchain.quantize.regions import expectations
from edgecount.toolchain.quantize.table import LEVELS, CalibrationTable

# Of a channel without weights: any scale represents zeros.
_DEAD_SCALE = np.float32(1.0 / LEVELS)


class Place(NamedTuple):
    """An input of a node that is read through Q/DQ. ``axis``: of a weight's channels."""

    node: str
    position: int
    tensor: str
    weight: bool
    axis: Optional[int] = None


def write_qdq(
    model: onnx.ModelProto, table: CalibrationTable, rules: Optional[PrecisionRules] = None
) -> onnx.ModelProto:
    """A quantised copy of ``model``.

    Args:
        model: FP32, norms folded.
        table: Its activations' clipping points.
        rules: Which layers are not INT8; none where None.

    Raises:
        ModelError: The model is quantised already, or has nothing to quantise.
        ConfigError: A rule matches no layer.
        DatasetError: The table lacks a tensor.
    """
    rules = rules or PrecisionRules()
    copy = graphs.prepared(model)
    chosen = precisions(copy, rules)
    found = places(copy, chosen)
    if not found and not any(p == "fp16" for p in chosen.values()):
        raise ModelError("no layer is left to quantise: the rules keep all of them in FP32")
    _Writer(copy, table).write(found)
    if "fp16" in chosen.values():
        copy = to_half(copy, lambda name: chosen.get(name) != "fp16")
    _say(copy, table, rules, chosen)
    return copy


def tensors_to_calibrate(
    model: onnx.ModelProto, rules: Optional[PrecisionRules] = None
) -> List[str]:
    """The activations whose clipping points :func:`write_qdq` will ask for."""
    copy = graphs.prepared(model)
    found = places(copy, precisions(copy, rules or PrecisionRules()))
    return list(dict.fromkeys(p.tensor for p in found if not p.weight))


def places(model: onnx.ModelProto, chosen: Mapping[str, Precision]) -> List[Place]:
    """Where Q/DQ belongs, given each layer's precision; in the order of execution."""
    able = {n.name for n in layers(model)} - expectations(model)
    made = graphs.makers(model)
    read = graphs.readers(model)
    found: List[Place] = []
    for node in model.graph.node:
        if node.op_type in QUANTISABLE and node.name in able and chosen[node.name] == "int8":
            found.append(Place(node.name, 0, node.input[0], weight=False))
            found.append(Place(node.name, 1, node.input[1], weight=True, axis=_axis(node)))
        elif node.op_type == "Add" and node.name not in chosen:
            found += _residual(node, made, read, able, chosen)
    return found


def _residual(
    node: onnx.NodeProto,
    made: Mapping[str, onnx.NodeProto],
    read: Mapping[str, Sequence[Tuple[onnx.NodeProto, int]]],
    able: Any,
    chosen: Mapping[str, Precision],
) -> List[Place]:
    """The inputs of a residual Add that TensorRT wants quantised.

    A convolution of which the Add is the only reader takes the Add into itself, so that
    one input stays as it is; of two such convolutions the later does.
    """
    sources = [made.get(name) for name in node.input]
    if any(source is None for source in sources) or node.input[0] == node.input[1]:
        return []  # a bias, or a doubling: no residual
    quantised = [s is not None and s.name in able and chosen[s.name] == "int8" for s in sources]
    behind = [q or _is_activation_of(s, made, able, chosen) for q, s in zip(quantised, sources)]
    if not any(behind):
        return []
    fused = [
        i for i in (0, 1) if quantised[i] and len(read[node.input[i]]) == 1
    ]  # fmt: skip
    keep = fused[-1] if fused else None
    return [Place(node.name, i, node.input[i], weight=False) for i in (0, 1) if i != keep]


def _is_activation_of(
    source: Optional[onnx.NodeProto],
    made: Mapping[str, onnx.NodeProto],
    able: Any,
    chosen: Mapping[str, Precision],
) -> bool:
    """Whether a node is an activation function right behind an INT8 layer."""
    if source is None or source.op_type in QUANTISABLE:
        return False
    before = [made.get(name) for name in source.input]
    return any(b is not None and b.name in able and chosen[b.name] == "int8" for b in before)


def _axis(node: onnx.NodeProto) -> Optional[int]:
    """Axis of a weight's output channels; None where one scale must do for all."""
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    return -1


class _Writer:
    """Puts Q/DQ nodes into a graph."""

    def __init__(self, model: onnx.ModelProto, table: CalibrationTable) -> None:
        self._graph = model.graph
        self._table = table
        self._groups = graphs.ScaleGroups(model)
        self._weights = graphs.weights(model)
        self._nodes: Dict[str, List[onnx.NodeProto]] = {}  # node's name → those before it
        self._quantised: Dict[str, str] = {}  # tensor → its INT8 form

    def write(self, found: Sequence[Place]) -> None:
        """Write all pairs; nodes stay in an order in which they can be run."""
        scales = self._scales([p.tensor for p in found if not p.weight])
        by_name = {node.name: node for node in self._graph.node}
        for place in found:
            scale = (
                channel_scales(self._weights[place.tensor], place.axis)
                if place.weight
                else scales[place.tensor]
            )
            node = by_name[place.node]
            node.input[place.position] = self._pair(place, scale)
        ordered = [n for node in self._graph.node for n in (*self._nodes.get(node.name, ()), node)]
        del self._graph.node[:]
        self._graph.node.extend(ordered)

    def _scales(self, tensors: Sequence[str]) -> Dict[str, NDArray[np.float32]]:
        amax = {name: self._table.scale(name) * LEVELS for name in tensors}
        shared = self._groups.shared(amax)
        return {
            name: np.asarray(shared[self._groups.leader(name)] / LEVELS, np.float32)
            for name in tensors
        }

    def _pair(self, place: Place, scale: NDArray[np.float32]) -> str:
        """The tensor's dequantised form for one reader: one Q per tensor, a DQ per reader."""
        before = self._nodes.setdefault(place.node, [])
        rank = self._weights[place.tensor].ndim if place.weight else 1
        axis = {} if scale.ndim == 0 or place.axis is None else {"axis": place.axis % rank}
        if place.tensor not in self._quantised:
            names = self._constants(place.tensor, scale)
            quantised = f"{place.tensor}.quantized"
            before.append(
                helper.make_node(
                    "QuantizeLinear",
                    [place.tensor, *names],
                    [quantised],
                    name=f"{place.tensor}.quantize",
                    **axis,
                )
            )
            self._quantised[place.tensor] = quantised
        dequantised = f"{place.tensor}.for.{place.node}"
        before.append(
            helper.make_node(
                "DequantizeLinear",
                [self._quantised[place.tensor], *_constant_names(place.tensor)],
                [dequantised],
                name=f"{place.tensor}.dequantize.{place.node}",
                **axis,
            )
        )
        return dequantised

    def _constants(self, tensor: str, scale: NDArray[np.float32]) -> Tuple[str, str]:
        names = _constant_names(tensor)
        values = (scale.astype(np.float32), np.zeros(scale.shape, np.int8))
        for name, value in zip(names, values):
            self._graph.initializer.append(numpy_helper.from_array(value, name))
        return names


def channel_scales(weight: NDArray[np.float32], axis: Optional[int]) -> NDArray[np.float32]:
    """What one quantised step is worth: (channels,) float32, or () where ``axis`` is None."""
    if axis is None:
        amax = np.abs(weight).max()
    else:
        others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
        amax = np.abs(weight).max(axis=others)
    scale = np.asarray(amax, np.float32) / np.float32(LEVELS)
    scales: NDArray[np.float32] = np.where(scale > 0, scale, _DEAD_SCALE).astype(np.float32)
    return scales


def _constant_names(tensor: str) -> Tuple[str, str]:
    return f"{tensor}.scale", f"{tensor}.zero_point"


def _say(
    model: onnx.ModelProto,
    table: CalibrationTable,
    rules: PrecisionRules,
    chosen: Mapping[str, Precision],
) -> None:
    """Leave in the file how it was made."""
    kept = {p: sum(1 for x in chosen.values() if x == p) for p in ("int8", "fp16", "fp32")}
    written = {
        "method": table.method,
        "images": table.images,
        "images_sha256": table.images_sha256,
        "model_sha256": table.model_sha256,
        "fp32": list(rules.fp32),
        "fp16": list(rules.fp16),
        "last": rules.last,
        "layers": kept,
    }
    leave_note(model, METADATA_KEY, json.dumps(written, sort_keys=True))
