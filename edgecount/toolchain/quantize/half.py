"""FP16 in the file: what strongly typed builds take their precision from.

Weights and tensors become FP16 except where a node must stay in FP32; casts stand where the
two meet. Input and output of the network stay FP32, so that nothing else changes. Each node
keeps its name.
"""

from typing import Callable, Dict, Iterable, Iterator, List, Set, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecount.errors import ModelError

_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
_LARGEST = float(np.finfo(np.float16).max)
# Inputs that ONNX defines as FP32 whatever the data's type, by position.
_FLOAT_INPUTS: Dict[str, Tuple[int, ...]] = {"Resize": (1, 2), "Upsample": (1,)}
# Scales stay FP32 (TensorRT's rule), and below opset 19 what is quantised must be FP32, too.
_FLOAT_NODES = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "NonMaxSuppression", "Range", "RandomNormalLike"}
)


def to_half(
    model: onnx.ModelProto, keep: Callable[[str], bool] = lambda _name: False
) -> onnx.ModelProto:
    """A copy of ``model`` that computes in FP16.

    Args:
        model: FP32, without subgraphs that compute (detectors have none).
        keep: Whether the node of this name stays in FP32.

    Raises:
        ModelError: A weight does not fit FP16, or the file cannot be analysed.
    """
    try:
        typed = onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise ModelError(f"the types of the model's tensors cannot be inferred: {error}") from error
    return _Conversion(typed, keep).run()


class _Conversion:
    """One pass over the nodes, which ONNX keeps in the order of their execution."""

    def __init__(self, model: onnx.ModelProto, keep: Callable[[str], bool]) -> None:
        self._model = model
        self._graph = model.graph
        self._keep = keep
        self._floats = set(_float_tensors(model.graph))
        self._weights = {i.name: i for i in model.graph.initializer if i.data_type == _FLOAT}
        self._half: Set[str] = set()  # tensors that are FP16 now
        self._made: Set[str] = set()  # casts and FP16 weights that are already there
        self._nodes: List[onnx.NodeProto] = []
        self._initializers: List[onnx.TensorProto] = []

    def run(self) -> onnx.ModelProto:
        outputs = {o.name for o in self._graph.output}
        for node in self._graph.node:
            self._convert(node, outputs)
        used = {name for node in self._nodes for name in node.input}
        kept = [i for i in self._graph.initializer if i.name in used]
        converted = onnx.ModelProto()
        converted.CopyFrom(self._model)
        graph = converted.graph
        for part in (graph.node, graph.initializer, graph.value_info):
            del part[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(kept + self._initializers)
        return converted

    def _convert(self, node: onnx.NodeProto, outputs: Set[str]) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        half = node.op_type not in _FLOAT_NODES and not self._keep(node.name)
        exempt = _FLOAT_INPUTS.get(node.op_type, ())
        for i, name in enumerate(node.input):
            if name in self._floats:
                copy.input[i] = self._as(name, half and i not in exempt)
        self._nodes.append(copy)
        if not half:
            return
        _halve_attributes(copy)
        for i, name in enumerate(node.output):
            if name not in self._floats:
                continue
            if name in outputs:
                copy.output[i] = f"{name}.half"
                self._nodes.append(_cast(copy.output[i], name, _FLOAT))
            else:
                self._half.add(name)

    def _as(self, name: str, half: bool) -> str:
        """The tensor in the wanted type; a cast or a converted weight is made once."""
        if half == (name in self._half):
            return name
        wanted = f"{name}.half" if half else f"{name}.float"
        if wanted in self._made:
            return wanted
        self._made.add(wanted)
        if name in self._weights:
            self._initializers.append(_halved(self._weights[name], wanted))
        else:
            self._nodes.append(_cast(name, wanted, _HALF if half else _FLOAT))
        return wanted


def _float_tensors(graph: onnx.GraphProto) -> Iterator[str]:
    typed: List[Iterable[onnx.ValueInfoProto]] = [graph.input, graph.value_info, graph.output]
    for group in typed:
        for info in group:
            if info.type.tensor_type.elem_type == _FLOAT:
                yield info.name
    for weight in graph.initializer:
        if weight.data_type == _FLOAT:
            yield weight.name


def _cast(name: str, wanted: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [wanted], name=f"cast.{wanted}", to=kind)


def _halved(weight: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(weight)
    if values.size and float(np.abs(values).max()) > _LARGEST:
        raise ModelError(
            f"weight {weight.name!r} holds {np.abs(values).max():.3g}, more than FP16 can: build "
            "in FP32, or keep its layer in FP32 (precision.fp32 of the recipe)"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _halve_attributes(node: onnx.NodeProto) -> None:
    """Types that a node names itself: a constant's value, a cast's aim."""
    for attribute in node.attribute:
        if attribute.HasField("t") and attribute.t.data_type == _FLOAT:
            attribute.t.CopyFrom(_halved(attribute.t, attribute.t.name))
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
            attribute.i = _HALF
