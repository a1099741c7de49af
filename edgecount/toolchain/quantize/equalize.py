"""Give the channels of an activation the same range before it is quantised.

One scale for a whole activation is set by its largest channel, and small channels are left
with few steps; depthwise networks suffer most. Behind a Relu a channel can be divided by any
positive number if the next layers' weights for it are multiplied by the same: the model stays
the same function (Nagel et al. 2019, *Data-free quantization through weight equalization*,
section 4.1), and weights have scales of their own for each channel. How much is moved from
activations to weights is balanced as by Xiao et al. 2023, *SmoothQuant*, equation 4.

Numbers are powers of two, so the FP32 model gives the very same output, to the bit.
"""

from itertools import islice
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.recipe import Recipe
from edgecount.records import Float32Array, UInt8Array
from edgecount.toolchain.quantize import graph as graphs
from edgecount.toolchain.quantize.watched import WatchedNetwork

IMAGES = 64
"""Pictures that channels' ranges are measured on: ranges, unlike tails, settle soon."""

_LARGEST_POWER = 6  # a dead channel must not blow its weights up
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_SHARE = 0.5  # SmoothQuant's α: half of the difference goes to dense weights


class Seam(NamedTuple):
    """An activation that can be equalised.

    Attributes:
        tensor: What the Relu makes.
        before: The convolution before the Relu.
        after: The convolutions that read it.
    """

    tensor: str
    before: onnx.NodeProto
    after: Tuple[onnx.NodeProto, ...]


def equalise(
    model: onnx.ModelProto, images: Iterable[UInt8Array], recipe: Recipe
) -> onnx.ModelProto:
    """A copy with the channels of activations evened out; it computes the same.

    Args:
        model: FP32.
        images: (H, W, 3) uint8 BGR pictures; the first :data:`IMAGES` are used.
        recipe: The model's recipe.

    Raises:
        ModelError, EngineError: The model cannot be prepared or run.
    """
    copy = graphs.prepared(model)
    found = seams(copy)
    if found:
        ranges = _channel_ranges(copy, [seam.tensor for seam in found], images, recipe)
        apply(copy, found, ranges)
    return copy


def seams(model: onnx.ModelProto) -> List[Seam]:
    """The activations that can be equalised: Relu of a convolution, read by convolutions only."""
    made, read = graphs.makers(model), graphs.readers(model)
    constants = graphs.weights(model)
    outputs = {o.name for o in model.graph.output}
    found = []
    for node in model.graph.node:
        conv = made.get(node.input[0]) if node.op_type == "Relu" else None
        if conv is None or not _is_own(conv, constants) or len(read[conv.output[0]]) > 1:
            continue
        after = tuple(reader for reader, _ in read.get(node.output[0], ()))
        readable = all(_can_take(reader, constants) for reader in after)
        if after and readable and node.output[0] not in outputs:
            found.append(Seam(node.output[0], conv, after))
    return found


def apply(
    model: onnx.ModelProto, found: Sequence[Seam], ranges: Mapping[str, Float32Array]
) -> None:
    """Divide each seam's channels, in place, by the powers of two that even them out.

    Args:
        model: The model of the seams.
        found: What is equalised.
        ranges: Tensor → (channels,) greatest magnitude of each channel.
    """
    stored = {i.name: i for i in model.graph.initializer}
    for seam in found:
        weights = [numpy_helper.to_array(stored[r.input[1]]) for r in seam.after]
        divisors = _divisors(ranges[seam.tensor], seam.after, weights)
        for name in seam.before.input[1:]:
            value = numpy_helper.to_array(stored[name])
            _store(stored[name], value / divisors.reshape(-1, *(1,) * (value.ndim - 1)))
        for reader, weight in zip(seam.after, weights):
            shape = (-1, 1, 1, 1) if _is_depthwise(reader, weight) else (1, -1, 1, 1)
            _store(stored[reader.input[1]], weight * divisors.reshape(shape))


def divisors(original: onnx.ModelProto, equalised: onnx.ModelProto) -> Dict[str, Float32Array]:
    """What the channels of ``equalised`` were divided by, read from the weights of both.

    It may be quantised or trained since: most weights of a channel tell its power of two.

    Args:
        original: The FP32 model that it was made of.
        equalised: Made by :func:`equalise`, and maybe more.

    Returns:
        Tensor → (channels,) powers of two; only tensors that both have and that differ.

    Raises:
        ModelError: The original cannot be prepared: it is quantised itself.
    """
    original = graphs.prepared(original)
    before, after = graphs.weights(original), _StoredWeights(equalised)
    found: Dict[str, Float32Array] = {}
    for seam in seams(original):
        weight, other = before[seam.before.input[1]], after.of(seam.before.output[0])
        if other is None or other.shape != weight.shape:
            continue
        given = found.get(seam.before.input[0])
        if given is not None:
            shape = (-1, 1, 1, 1) if _is_depthwise(seam.before, weight) else (1, -1, 1, 1)
            weight = weight * given.reshape(shape)
        powers = [_power(a, b) for a, b in zip(weight, other)]
        if any(powers):
            divided_by: Float32Array = np.exp2(powers).astype(np.float32)
            found[seam.before.output[0]] = found[seam.tensor] = divided_by
    return found


class _StoredWeights:
    """Weights of convolutions, seen through what quantises and casts them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._made = graphs.makers(model)
        self._stored = {i.name: i for i in model.graph.initializer}

    def of(self, tensor: str) -> Optional[NDArray[np.float32]]:
        """Of the convolution that makes ``tensor``; None where they are not stored in floats."""
        node = self._made.get(tensor)
        if node is None or node.op_type != "Conv":
            return None
        name = node.input[1]
        while name not in self._stored and name in self._made:
            name = self._made[name].input[0]
        stored = self._stored.get(name)
        if stored is None or stored.data_type not in _FLOATS:
            return None
        weight: NDArray[np.float32] = numpy_helper.to_array(stored).astype(np.float32)
        return weight


def _power(weight: NDArray[np.float32], divided: NDArray[np.float32]) -> int:
    """The power of two by which most of the weights were divided."""
    told = (weight != 0) & (divided != 0)
    if not told.any():
        return 0
    return int(np.rint(np.median(np.log2(np.abs(weight[told] / divided[told])))))


def _divisors(
    reach: Float32Array,
    readers: Sequence[onnx.NodeProto],
    weights: Sequence[NDArray[np.float32]],
) -> Float32Array:
    """Powers of two: what each channel is divided by."""
    least = float(reach.max()) * 2.0**-_LARGEST_POWER or 1.0
    uneven = np.maximum(reach, least) / max(float(reach.max()), least)
    dense = [w for r, w in zip(readers, weights) if not _is_depthwise(r, w)]
    if dense:
        # Their weights share a scale over all input channels, and take half of it only.
        columns = np.max([np.abs(w).max(axis=(0, 2, 3)) for w in dense], axis=0)
        columns = np.maximum(columns / max(float(columns.max()), 1e-30), 2.0**-_LARGEST_POWER)
        uneven = uneven**_SHARE / columns ** (1 - _SHARE)
    powers = np.clip(np.rint(np.log2(uneven)), -_LARGEST_POWER, _LARGEST_POWER)
    divisors: Float32Array = np.exp2(powers).astype(np.float32)
    return divisors


def _is_own(node: onnx.NodeProto, constants: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether a node is a 2-D convolution with stored weights."""
    return (
        node.op_type == "Conv"
        and all(name in constants for name in node.input[1:])
        and constants[node.input[1]].ndim == 4
    )


def _can_take(node: onnx.NodeProto, constants: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether a convolution is dense or depthwise; groups of channels are left alone."""
    if not _is_own(node, constants):
        return False
    return _groups(node) == 1 or _is_depthwise(node, constants[node.input[1]])


def _groups(node: onnx.NodeProto) -> int:
    groups: int = next((a.i for a in node.attribute if a.name == "group"), 1)
    return groups


def _is_depthwise(node: onnx.NodeProto, weight: NDArray[np.float32]) -> bool:
    channels, into = weight.shape[:2]
    return bool(_groups(node) == channels > 1 and into == 1)


def _store(proto: onnx.TensorProto, value: NDArray[np.float32]) -> None:
    proto.CopyFrom(numpy_helper.from_array(value.astype(np.float32), proto.name))


def _channel_ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    images: Iterable[UInt8Array],
    recipe: Recipe,
) -> Dict[str, Float32Array]:
    """Tensor → (channels,): the mean over pictures of each channel's greatest magnitude."""
    network = WatchedNetwork(model, tensors)
    size = recipe.input.width, recipe.input.height
    thresholds = Thresholds(recipe.low_threshold, recipe.nms_iou)
    detector = OnnxDetector(network, recipe, size=size, thresholds=thresholds)
    sums: Optional[List[Float32Array]] = None
    count = 0
    for image in islice(images, IMAGES):
        values = network.activations(detector.network_input(image))
        peaks = [np.abs(value).max(axis=(0, 2, 3)) for value in values]
        sums = peaks if sums is None else [a + b for a, b in zip(sums, peaks)]
        count += 1
    means = [np.asarray(total / count, np.float32) for total in sums or ()]
    return dict(zip(network.watched, means))
