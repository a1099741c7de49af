"""A network of three layers whose every activation can be worked out by hand.

A 1×1 convolution turns B, G, R into ``B`` and ``−2·G`` (tensor ``mixed``), a ReLU makes 0 of
the second (``positive``), another convolution doubles the first (``output``).
"""

from pathlib import Path
from typing import Optional, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecount.infer.recipe import InputRecipe, Recipe

SIDE = 32


def channel_model(
    path: Path,
    *,
    batch: object = "batch",
    first: Sequence[Sequence[float]] = ((1, 0, 0), (0, -2, 0)),
    second: Sequence[Sequence[float]] = ((2, 0),),
    elem_type: int = TensorProto.FLOAT,
) -> Path:
    """Write it; ``first`` and ``second`` are the convolutions' weights, (out, in)."""
    kind = helper.tensor_dtype_to_np_dtype(elem_type)
    weights = [
        numpy_helper.from_array(np.array(values, kind)[:, :, None, None], name)
        for name, values in (("w1", first), ("w2", second))
    ]
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["mixed"], "mix"),
        helper.make_node("Relu", ["mixed"], ["positive"], "act"),
        helper.make_node("Conv", ["positive", "w2"], ["output"], "double"),
    ]
    shape = [batch, 3, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "channels",
        [helper.make_tensor_value_info("images", elem_type, shape)],
        [helper.make_tensor_value_info("output", elem_type, [batch, len(second), SIDE, SIDE])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def recipe(file: str = "channels.onnx", **given: object) -> Recipe:
    return Recipe(
        name="channels",
        file=file,
        head="ltrb",
        classes=["head"],
        input=InputRecipe(width=SIDE, height=SIDE, **given),
    )


def plain_picture(blue: int, green: int, red: int, side: Optional[int] = None) -> "np.ndarray":
    """(side, side, 3) uint8 of one colour."""
    picture = np.empty((side or SIDE, side or SIDE, 3), np.uint8)
    picture[:] = (blue, green, red)
    return picture
