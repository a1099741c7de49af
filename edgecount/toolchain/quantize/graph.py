"""What quantisation must know of an ONNX graph: who reads what, and what shares a scale."""

from typing import Any, Container, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgecount.errors import ModelError
from edgecount.toolchain.quantize.watched import describe

LEAST_OPSET = 13
"""The first with a scale per channel in QuantizeLinear."""

# They move or choose values: a quantised input is a quantised output with the same scale.
# Resize and AveragePool mix neighbours, whose mean needs no larger range.
PASSING = frozenset(
    {
        "Concat",
        "MaxPool",
        "Resize",
        "Upsample",
        "AveragePool",
        "Slice",
        "Split",
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
    }
)
Readers = Dict[str, List[Tuple[onnx.NodeProto, int]]]
"""Tensor → the nodes that read it, each with the position of the input."""

_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul")


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that Q/DQ can be written into.

    Its opset is 13 or more, every node has a name of its own, constants are initializers, and
    each batch norm is folded into the convolution before it.

    Raises:
        ModelError: It is quantised already, has subgraphs, or cannot be brought to opset 13.
    """
    for node in model.graph.node:
        if node.op_type in _QUANTISED:
            raise ModelError(
                f"the model is quantised already ({describe(node)}): quantise the FP32 file that "
                "it was made of"
            )
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise ModelError(
                f"{describe(node)} has a graph inside it, which cannot be quantised: export the "
                "detector without control flow, and with its NMS left out"
            )
    copy = onnx.ModelProto()
    copy.CopyFrom(_upgraded(model))
    _name_nodes(copy)
    _store_constants(copy.graph)
    _fold_norms(copy)
    return copy


def weights(model: onnx.ModelProto) -> Dict[str, NDArray[np.float32]]:
    """The FP32 constants by name."""
    return {
        i.name: numpy_helper.to_array(i)
        for i in model.graph.initializer
        if i.data_type == onnx.TensorProto.FLOAT
    }


def readers(model: onnx.ModelProto) -> Readers:
    """Tensor → the nodes that read it, each with the position of the input."""
    found: Readers = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            found.setdefault(name, []).append((node, position))
    return found


def makers(model: onnx.ModelProto) -> Dict[str, onnx.NodeProto]:
    """Tensor → the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output}


class ScaleGroups:
    """Tensors that must have the same scale, because one is made of the others unchanged.

    TensorRT fuses Q/DQ through such operators only if the scales on both sides agree; where
    they do not it inserts conversions that cost more than INT8 saves.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._leader: Dict[str, str] = {}
        constants = {i.name for i in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in PASSING:
                inputs = node.input if node.op_type == "Concat" else node.input[:1]
                for name in (*inputs, *node.output):
                    if name and name not in constants:
                        self._join(node.output[0], name)

    def members(self, among: Mapping[str, float]) -> Dict[str, Set[str]]:
        """Leader → those of its group that are keys of ``among``."""
        found: Dict[str, Set[str]] = {}
        for name in among:
            found.setdefault(self.leader(name), set()).add(name)
        return found

    def leader(self, name: str) -> str:
        """The tensor that stands for the group of ``name``; itself where it is alone."""
        while name in self._leader:
            name = self._leader[name]
        return name

    def shared(self, amax: Mapping[str, float]) -> Dict[str, float]:
        """Leader → the greatest clipping point in its group."""
        groups = self.members(amax)
        return {leader: max(amax[n] for n in names) for leader, names in groups.items()}

    def _join(self, a: str, b: str) -> None:
        a, b = self.leader(a), self.leader(b)
        if a != b:
            self._leader[b] = a


def _upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset >= LEAST_OPSET:
        return model
    try:
        raised = onnx.version_converter.convert_version(model, LEAST_OPSET)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the model has opset {opset} and cannot be brought to {LEAST_OPSET}, which Q/DQ with "
            f"a scale per channel needs ({error}): export it again with opset {LEAST_OPSET} or more"
        ) from error
    helper.set_model_props(raised, {p.key: p.value for p in model.metadata_props})
    return raised


def _store_constants(graph: onnx.GraphProto) -> None:
    """Make initializers of Constant nodes, as of what an Identity hands on of an initializer."""
    stored = {i.name: i for i in graph.initializer}
    outputs = {o.name for o in graph.output}
    kept = []
    for node in graph.node:
        value = _stored(node, stored)
        if value is None or node.output[0] in outputs:
            kept.append(node)
            continue
        copy = graph.initializer.add()
        copy.CopyFrom(value)
        copy.name = node.output[0]
        stored[copy.name] = copy
    _replace_nodes(graph, kept)


def _stored(
    node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]
) -> Optional[onnx.TensorProto]:
    if node.op_type == "Identity":
        return stored.get(node.input[0])
    if node.op_type != "Constant":
        return None
    (given,) = node.attribute
    if given.name == "value":
        return given.t
    kinds: Dict[str, Any] = {"value_float": np.float32, "value_floats": np.float32}
    kinds.update({"value_int": np.int64, "value_ints": np.int64})
    if given.name not in kinds:
        return None
    return numpy_helper.from_array(np.asarray(helper.get_attribute_value(given), kinds[given.name]))


def _fold_norms(model: onnx.ModelProto) -> None:
    """Fold each BatchNormalization into its convolution: nothing may be quantised between them.

    Exact: γ (w·x + b − μ) ÷ √(σ² + ε) + β is the same convolution with other numbers.
    """
    constants, made, read = weights(model), makers(model), readers(model)
    outputs = {o.name for o in model.graph.output}
    kept = []
    for node in model.graph.node:
        conv = made.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        alone = len(read.get(node.input[0], ())) == 1 and node.input[0] not in outputs
        if conv is None or not alone or not _can_merge(conv, node, constants):
            kept.append(node)
        else:
            _merge_norm(model.graph, conv, node, constants)
    _replace_nodes(model.graph, kept)


def _can_merge(conv: onnx.NodeProto, norm: onnx.NodeProto, constants: Container[str]) -> bool:
    fixed = all(name in constants for name in (*conv.input[1:], *norm.input[1:]))
    return conv.op_type == "Conv" and fixed


def _merge_norm(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    norm: onnx.NodeProto,
    constants: Mapping[str, NDArray[np.float32]],
) -> None:
    gamma, beta, mean, variance = (constants[name] for name in norm.input[1:5])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    gain = gamma / np.sqrt(variance + epsilon)
    weight = constants[conv.input[1]]
    bias = constants[conv.input[2]] if len(conv.input) > 2 else np.zeros_like(mean)
    folded = weight * gain.reshape(-1, *(1 for _ in weight.shape[1:]))
    values = {"weight": folded, "bias": (bias - mean) * gain + beta}
    del conv.input[1:]
    for kind, value in values.items():
        name = f"{conv.name}.folded_{kind}"
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        conv.input.append(name)
    conv.output[0] = norm.output[0]


def _replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Keep these nodes only, and the initializers that they read."""
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
    read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in read:
            del graph.initializer[index]


def _name_nodes(model: onnx.ModelProto) -> None:
    """Rules speak of nodes by name; exporters may leave it out or use it twice."""
    taken: Set[str] = set()
    for node in model.graph.node:
        node.name = next(name for name in _names(node) if name not in taken)
        taken.add(node.name)


def _names(node: onnx.NodeProto) -> Iterator[str]:
    base = node.name or node.output[0] or node.op_type
    yield base
    yield f"{base}.{node.output[0]}"
    number = 2
    while True:
        yield f"{base}.{number}"
        number += 1
