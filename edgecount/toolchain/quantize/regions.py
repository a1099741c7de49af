"""Neck, head and last layers of a detector, found by the structure of its graph.

Exporters may name layers by number: a preset that speaks of the neck must work there, too.
"""

from typing import Dict, List, Sequence, Set

import onnx

from edgecount.toolchain.quantize import graph as graphs

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MERGING = frozenset({"Concat", "Add", "Resize", "Upsample"})
_ENLARGING = frozenset({"Resize", "Upsample", "ConvTranspose"})


def region(model: onnx.ModelProto, name: str) -> Set[str]:
    """Names of the nodes of the ``neck`` or the ``head``; empty where there is none.

    Layers belong to it by a part of their name (``neck.out3.conv``) if any does, else by
    structure. Other nodes follow the layers that they alone read.
    """
    named = {n.name for n in _layers(model) if name in n.name.replace("/", ".").split(".")}
    found = named or (head(model) if name == "head" else neck(model))
    return followed(model, found)


def head(model: onnx.ModelProto) -> Set[str]:
    """Layers after which features are not merged any more.

    That is: no Concat, Add or Resize behind them is read by yet another layer (the decoding
    of YOLOv8's bins aside).
    """
    read = graphs.readers(model)
    decoding = expectations(model)
    feeds: Set[str] = set()  # nodes behind which there is a layer
    merged: Set[str] = set()  # nodes behind which there is a merge, and behind that a layer
    for node in reversed(model.graph.node):
        after = _after(node, read)
        if any(r.name in feeds or _is_layer(r, decoding) for r in after):
            feeds.add(node.name)
        if any(r.name in merged or (r.op_type in _MERGING and r.name in feeds) for r in after):
            merged.add(node.name)
    return {n.name for n in _layers(model)} - merged - decoding


def neck(model: onnx.ModelProto) -> Set[str]:
    """Layers behind the first enlargement of a feature map that are not of the head."""
    made = graphs.makers(model)
    behind: Set[str] = set()
    for node in model.graph.node:
        sources = [made[name].name for name in node.input if name in made]
        if node.op_type in _ENLARGING or any(s in behind for s in sources):
            behind.add(node.name)
    return {n.name for n in _layers(model) if n.name in behind} - head(model)


def last(model: onnx.ModelProto, count: int) -> Set[str]:
    """The last ``count`` layers of every branch: fewer than so many layers follow them."""
    read = graphs.readers(model)
    decoding = expectations(model)
    following: Dict[str, int] = {}
    for node in reversed(model.graph.node):
        ways = [following[r.name] + _is_layer(r, decoding) for r in _after(node, read)]
        following[node.name] = max(ways, default=0)
    return {n.name for n in _layers(model) if following[n.name] < count} - decoding


def expectations(model: onnx.ModelProto) -> Set[str]:
    """Convolutions that are the mean over bins of YOLOv8: their weights are 0, 1, 2 and so on.

    (Li et al. 2020, *Generalized Focal Loss*, section 3.2.) The result is a distance in strides:
    a quantised step of it would be pixels.
    """
    constants = graphs.weights(model)
    found = set()
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is not None and weight.shape[0] == 1 and weight.size >= 4:
            flat = weight.reshape(-1)
            if all(value == index for index, value in enumerate(flat)):
                found.add(node.name)
    return found


def followed(model: onnx.ModelProto, chosen: Set[str]) -> Set[str]:
    """These nodes, and others than layers that read nothing but what these make."""
    made = graphs.makers(model)
    found = set(chosen)
    for node in model.graph.node:
        sources = [made[name].name for name in node.input if name in made]
        if sources and node.op_type not in _LAYERS and all(s in found for s in sources):
            found.add(node.name)
    return found


def _layers(model: onnx.ModelProto) -> List[onnx.NodeProto]:
    return [n for n in model.graph.node if n.op_type in _LAYERS]


def _is_layer(node: onnx.NodeProto, decoding: Set[str]) -> bool:
    return node.op_type in _LAYERS and node.name not in decoding


def _after(node: onnx.NodeProto, read: graphs.Readers) -> Sequence[onnx.NodeProto]:
    return [reader for out in node.output for reader, _ in read.get(out, ())]
