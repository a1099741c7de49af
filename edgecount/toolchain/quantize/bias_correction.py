"""Take out of each layer's bias what rounding and clipping put in on average.

Rounding weights and clipping activations moves the mean of a layer's output. The expected error
of each channel is measured on pictures and subtracted from its bias (Nagel et al. 2019,
*Data-free quantization through weight equalization and bias correction*, section 4.2 and
appendix D). Each layer's own error is measured: it reads the FP32 activation, quantised.
A layer's correction then depends on no other layer, so that layers can be spared one by one.
Correcting what errors of earlier layers do, too, was worse: most of a picture is background, and
the mean error there is not that on heads.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Iterable, List, Mapping, Tuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.recipe import Recipe
from edgecount.records import Float32Array, UInt8Array
from edgecount.toolchain.quantize import graph as graphs
from edgecount.toolchain.quantize.agreement import spread
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.reference import SessionNetwork, open_session
from edgecount.toolchain.quantize.table import CalibrationTable

IMAGES = 64
"""Pictures that errors are measured on: a mean over all positions settles soon."""

_OWN = "own_error."  # begins the names of what is added to the graph

Corrections = Mapping[str, Float32Array]
"""Layer → (channels,) what is added to its bias where it is INT8."""


def measure(
    model: onnx.ModelProto,
    table: CalibrationTable,
    images: Iterable[UInt8Array],
    recipe: Recipe,
    workers: int = 2,
) -> Corrections:
    """Each convolution's mean error in INT8, for every channel.

    Args:
        model: FP32, as :func:`~.qdq.write_qdq` takes it.
        table: Its calibration table.
        images: (H, W, 3) uint8 BGR pictures; :data:`IMAGES` of them, evenly spread, are used.
        recipe: The model's recipe.
        workers: Pictures run side by side, one CPU thread each.

    Raises:
        ModelError, EngineError: The model cannot be quantised or run.
    """
    both, layers = _with_own_errors(graphs.prepared(model), write_qdq(model, table))
    session = open_session(both, fuse=False)
    names = [f"{_OWN}{layer}" for layer in layers]
    size = recipe.input.width, recipe.input.height
    thresholds = Thresholds(recipe.low_threshold, recipe.nms_iou)
    network = SessionNetwork(model, fuse=False)
    detector = OnnxDetector(network, recipe, size=size, thresholds=thresholds)

    def errors(image: UInt8Array) -> List[Float32Array]:
        feed = {session.get_inputs()[0].name: detector.network_input(image)}
        return [np.asarray(value, np.float32) for value in session.run(names, feed)]

    chosen = spread(images, IMAGES)
    with ThreadPoolExecutor(workers) as pool:
        rows = list(pool.map(errors, chosen))
    return {layer: np.mean([row[i] for row in rows], axis=0) for i, layer in enumerate(layers)}


def correct(model: onnx.ModelProto, corrections: Corrections) -> onnx.ModelProto:
    """Add each INT8 layer's correction to its bias, in place, and return the model.

    Args:
        model: What :func:`~.qdq.write_qdq` made; layers that are not INT8 there are left alone.
        corrections: Of the model that it was made of.
    """
    stored = {i.name: i for i in model.graph.initializer}
    for node in _int8_convolutions(model):
        if node.name not in corrections:
            continue
        name = f"{node.name}.corrected_bias"
        value = corrections[node.name]
        if len(node.input) > 2:
            value = value + numpy_helper.to_array(stored[node.input[2]])
            node.input[2] = name
        else:
            node.input.append(name)
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    _forget_unread(model.graph)
    return model


def _with_own_errors(
    fp32: onnx.ModelProto, quantised: onnx.ModelProto
) -> Tuple[onnx.ModelProto, List[str]]:
    """The FP32 model, and beside each convolution what INT8 changes in it alone, as output."""
    graph = fp32.graph
    plain = {node.name: node for node in graph.node}
    made = graphs.makers(quantised)
    constants = {i.name: i for i in quantised.graph.initializer}
    layers = []
    for node in _int8_convolutions(quantised):
        own = onnx.NodeProto()
        own.CopyFrom(plain[node.name])
        own.name = own.output[0] = f"{_OWN}{node.name}.int8"
        for position in (0, 1):
            own.input[position] = _rounded(graph, made, node, position, plain[node.name])
        error, mean = f"{_OWN}{node.name}.error", f"{_OWN}{node.name}"
        graph.node.extend(
            [
                own,
                helper.make_node("Sub", [plain[node.name].output[0], own.output[0]], [error]),
                helper.make_node("ReduceMean", [error], [mean], axes=[0, 2, 3], keepdims=0),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(mean, onnx.TensorProto.FLOAT, None))
        layers.append(node.name)
    used = {name for node in graph.node for name in node.input}
    have = {i.name for i in graph.initializer}
    graph.initializer.extend(constants[n] for n in sorted(used - have) if n in constants)
    return fp32, layers


def _rounded(
    graph: onnx.GraphProto,
    made: Mapping[str, onnx.NodeProto],
    node: onnx.NodeProto,
    position: int,
    plain: onnx.NodeProto,
) -> str:
    """Copy the Q/DQ pair of an input, fed with the FP32 tensor; the name of what it makes."""
    second = made[node.input[position]]
    first = made[second.input[0]]
    source: str = plain.input[position]
    for pair, suffix in ((first, "q"), (second, "dq")):
        copy = onnx.NodeProto()
        copy.CopyFrom(pair)
        copy.input[0] = source
        source = f"{_OWN}{node.name}.{position}.{suffix}"
        copy.name = copy.output[0] = source
        graph.node.append(copy)
    return source


def _int8_convolutions(model: onnx.ModelProto) -> List[onnx.NodeProto]:
    made = graphs.makers(model)
    found = []
    for node in model.graph.node:
        source = made.get(node.input[0]) if node.op_type == "Conv" else None
        if source is not None and source.op_type == "DequantizeLinear":
            found.append(node)
    return found


def _forget_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in read:
            del graph.initializer[index]
