"""Bring a quantised file's scores onto FP32's scale, so that a threshold means the same.

Temperature scaling (Guo et al. 2017, section 4.2) with a shift (Platt 1999), fitted to what FP32
says of the same heads and folded into the layer that makes scores: every runtime reads it, and
the recipe's temperature and thresholds hold for both files. Rankings stay as they are.
"""

from typing import List, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgecount.infer.recipe import Recipe
from edgecount.toolchain.quantize import regions
from edgecount.toolchain.quantize.agreement import Pairs
from edgecount.toolchain.quantize.precision import layers

FEWEST = 100
"""Heads below which a fit says little."""

_LEAST_SLOPE, _MOST_SLOPE = 0.8, 1.25  # what is farther away was no rounding
_MOST_SHIFT = 1.0
_SCORE_ALONE = ("ltrb", "yolov8")


class ScoreScale(NamedTuple):
    """Logits of scores become ``slope × logit + shift``."""

    slope: float = 1.0
    shift: float = 0.0


UNSCALED = ScoreScale()


def fit(pairs: Pairs) -> ScoreScale:
    """The scale that gives the form's logits FP32's mean and spread.

    Not least squares, whose slope noise pulls towards 0. With fewer than :data:`FEWEST` heads
    nothing is changed.
    """
    if len(pairs.fp32) < FEWEST or not pairs.form.std():
        return UNSCALED
    ratio = float(pairs.fp32.std() / pairs.form.std())
    slope = min(max(ratio, _LEAST_SLOPE), _MOST_SLOPE)
    shift = float(pairs.fp32.mean() - slope * pairs.form.mean())
    return ScoreScale(slope, min(max(shift, -_MOST_SHIFT), _MOST_SHIFT))


def score_layers(model: onnx.ModelProto, recipe: Recipe) -> List[str]:
    """The convolutions whose output is the score's logit; none where that cannot be told.

    They are the last of their branches, and have as many channels as scores: one for each class,
    or the one of YOLOX's objectness.
    """
    classes = len(recipe.classes)
    if recipe.head in _SCORE_ALONE and classes != 4:
        channels = classes
    elif recipe.head == "yolox" and classes not in (1, 4):
        channels = 1
    else:
        return []
    weights = {i.name: i.dims for i in model.graph.initializer}
    last = regions.last(model, 1)
    return [
        node.name
        for node in layers(model)
        if node.name in last and node.op_type == "Conv" and weights[node.input[1]][0] == channels
    ]


def fold(model: onnx.ModelProto, names: List[str], scale: ScoreScale) -> onnx.ModelProto:
    """A copy of an FP32 model whose layers ``names`` give ``slope × output + shift``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {i.name: i for i in copy.graph.initializer}
    for node in copy.graph.node:
        if node.name not in names:
            continue
        weight = numpy_helper.to_array(stored[node.input[1]])
        bias = (
            numpy_helper.to_array(stored[node.input[2]])
            if len(node.input) > 2
            else np.zeros(len(weight), np.float32)
        )
        scaled = (weight * scale.slope, bias * scale.slope + scale.shift)
        for position, (kind, value) in enumerate(zip(("weight", "bias"), scaled), 1):
            name = f"{node.name}.scaled_{kind}"
            _put(copy, node, position, name, value)
    return copy


def _put(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    position: int,
    name: str,
    value: NDArray[np.float32],
) -> None:
    """Give a node a constant of its own: others may read the one that it had."""
    model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    if len(node.input) > position:
        node.input[position] = name
    else:
        node.input.append(name)
