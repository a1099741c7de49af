"""The layers of an engine, from TensorRT's inspector; or of a network, before fusion."""

import json
import re
from typing import Any, Dict, List, Optional, Sequence

_PART = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# Words of "Format/Datatype" and of types: TensorRT 8 and 10 differ in both.
_TYPES = (
    ("int8", ("int8",)),
    ("fp8", ("fp8",)),
    ("bf16", ("bf16", "bfloat16")),
    ("fp16", ("fp16", "half", "float16")),
    ("fp32", ("fp32", "float32", "float")),
    ("int64", ("int64",)),
    ("int32", ("int32",)),
    ("bool", ("bool",)),
)

LayerDict = Dict[str, Any]


def engine_layers(trt: Any, logger: Any, data: bytes) -> Optional[List[LayerDict]]:
    """The layers of a built engine; None where it cannot be opened here, for want of a GPU."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(data)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return parse_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def parse_inspector(text: str) -> List[LayerDict]:
    """Layers from the inspector's JSON.

    TensorRT ≤ 8.4 writes bare layer names where the engine was built without details.
    """
    layers: Sequence[Any] = json.loads(text).get("Layers", [])
    return [_named(layer) if isinstance(layer, str) else _detailed(layer) for layer in layers]


def _named(name: str) -> LayerDict:
    return {"name": name, "kind": "", "parts": [p.strip() for p in name.split(" + ")]}


def _detailed(layer: Dict[str, Any]) -> LayerDict:
    inputs, outputs = layer.get("Inputs", []), layer.get("Outputs", [])
    return {
        "name": layer.get("Name", ""),
        "kind": layer.get("ParameterType") or layer.get("LayerType", ""),
        "precision": _computed_in(layer, inputs, outputs),
        "inputs": [tensor.get("Name", "") for tensor in inputs],
        "outputs": [tensor.get("Name", "") for tensor in outputs],
        "parts": _PART.findall(layer.get("Metadata", "")),
    }


def _computed_in(layer: Dict[str, Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> str:
    """What a layer computes in: its weights' type, else the smallest of what goes in and out.

    A convolution that takes INT8 and gives FP16 computes in INT8.
    """
    weights = layer.get("Weights") or {}
    if isinstance(weights, dict) and weights.get("Count") and weights.get("Type"):
        return type_of(str(weights["Type"]))
    found = [type_of(str(t.get("Format/Datatype", ""))) for t in [*inputs, *outputs]]
    return next((name for name, _ in _TYPES if name in found), "")


def type_of(text: str) -> str:
    """``int8``, ``fp16`` … from TensorRT's words, e.g. ``Row major linear FP16 format``."""
    words = re.findall(r"[a-z]+\d*", text.lower())
    return next((name for name, known in _TYPES if any(w in known for w in words)), "")


def network_layers(network: Any) -> List[LayerDict]:
    """The layers of a network before TensorRT fuses them, constants left out."""
    layers = (network.get_layer(i) for i in range(network.num_layers))
    return [_declared(layer) for layer in layers if "CONSTANT" not in str(layer.type)]


def _declared(layer: Any) -> LayerDict:
    inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
    outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
    kind = str(layer.type).rsplit(".", 1)[-1].lower()
    return {
        "name": layer.name,
        "kind": kind,
        "precision": type_of(str(outputs[0].dtype).rsplit(".", 1)[-1]) if outputs else "",
        "inputs": [tensor.name for tensor in inputs if tensor is not None],
        "outputs": [tensor.name for tensor in outputs],
        "parts": [],
    }
