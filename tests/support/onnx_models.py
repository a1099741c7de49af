"""Tiny ONNX detectors for tests, in every output layout that edgecount decodes.

Two kinds, both of a few hundred kilobytes at most and run in about a millisecond:

* :func:`constant_model` says the same boxes for every picture: known numbers come out.
* :func:`spot_model` finds bright spots on a dark picture: something to track and count.
  A spot that covers 24×24 input pixels yields one box of 48×48 around it, and pictures
  drawn by :func:`picture_with_spots` hold just such spots.

``LAYOUTS`` names the layouts; all lengths are in pixels of the network's input.
"""

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

LAYOUTS = ("yolox", "yolov5", "yolov8", "ltrb", "end2end")
STRIDES = (8, 16, 32)
SPOT = 24
SPOT_BOX = 48
_END2END_ROWS = 100
_ANCHORS = {"yolov5": 3}
_OBJECTNESS = ("yolox", "yolov5")
_CELLS_LAST = ("yolov8", "ltrb")
_BYTE_INPUT = ("yolox", "ltrb")
_NO_LOGIT = -20.0
_OPSET = 13
_IR_VERSION = 8  # read by every ONNX Runtime since 1.9


class Box(NamedTuple):
    """One object that a model is to see, in pixels of its input."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float = 0.9
    label: int = 0


def constant_model(
    path: Path,
    layout: str,
    boxes: Sequence[Box],
    *,
    width: int = 64,
    height: int = 64,
    classes: int = 1,
    strides: Sequence[int] = STRIDES,
    dynamic: bool = False,
    metadata: Optional[Dict[str, str]] = None,
) -> Path:
    """Write a model whose output holds ``boxes``, whatever the picture.

    With ``dynamic`` the file leaves batch, height, width and number of rows open, as
    exporters do; it runs at ``width`` × ``height`` all the same.
    """
    answer = encode(layout, boxes, width, height, classes, strides)
    return answer_model(
        path,
        answer,
        width=width,
        height=height,
        open_axis=_rows_axis(layout) if dynamic else None,
        metadata=metadata,
    )


def answer_model(
    path: Path,
    answer: "np.ndarray",
    *,
    width: int = 64,
    height: int = 64,
    open_axis: Optional[int] = None,
    metadata: Optional[Dict[str, str]] = None,
) -> Path:
    """Write a model that says just ``answer`` (float32, without the batch axis), right or wrong.

    With ``open_axis`` the input is dynamic, and so is this axis of the output.
    """
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "one_each"], ["addend"]),
        helper.make_node("Add", ["answer", "addend"], ["output"]),
    ]
    constants = {
        "zero": np.zeros(1, np.float32),
        "one_each": np.ones(answer.ndim + 1, np.int64),
        "answer": np.asarray(answer, np.float32)[None],
    }
    shape = (1, *answer.shape)
    return _save(path, nodes, constants, (width, height), shape, open_axis, metadata)


def spot_model(
    path: Path,
    layout: str = "yolox",
    *,
    width: int = 416,
    height: int = 416,
    classes: int = 1,
    dynamic: bool = False,
    metadata: Optional[Dict[str, str]] = None,
) -> Path:
    """Write a model that sees bright spots as objects of class 0.

    It wants the pixel values that edgecount feeds such a layout when the file has no
    recipe: 0..255 for YOLOX and ltrb, 0..1 for the others.
    """
    empty = encode(layout, (), width, height, classes)
    brightest = 255.0 if layout in _BYTE_INPUT else 1.0
    constants = {
        **_score_constants(brightest, width // STRIDES[0], height // STRIDES[0]),
        **_layout_constants(layout, empty, width, height),
    }
    nodes = _score_nodes() + (_top_nodes() if layout == "end2end" else _grid_nodes(layout))
    open_axis = _rows_axis(layout) if dynamic else None
    return _save(path, nodes, constants, (width, height), (1, *empty.shape), open_axis, metadata)


def picture_with_spots(
    centers: Sequence[Tuple[float, float]], width: int = 416, height: int = 416, spot: int = SPOT
) -> "np.ndarray":
    """(height, width, 3) uint8: dark, with a white square around each x, y of ``centers``."""
    picture = np.full((height, width, 3), 16, np.uint8)
    for x, y in centers:
        left, top = round(x - spot / 2), round(y - spot / 2)
        picture[max(0, top) : max(0, top + spot), max(0, left) : max(0, left + spot)] = 255
    return picture


def write_spot_data(folder: Path, spots: Sequence[Sequence[Tuple[int, int]]], side: int) -> Path:
    """Square pictures with those spots, labelled, in YOLO format; returns ``folder``."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    box = SPOT_BOX / side
    for number, centres in enumerate(spots):
        cv2.imwrite(str(folder / f"images/{number}.png"), picture_with_spots(centres, side, side))
        rows = [f"0 {x / side} {y / side} {box} {box}" for x, y in centres]
        (folder / f"labels/{number}.txt").write_text("\n".join(rows))
    return folder


def value(name: str, shape: List[object], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def graph_model(
    path: Path,
    nodes: List[onnx.NodeProto],
    inputs: List[onnx.ValueInfoProto],
    outputs: List[onnx.ValueInfoProto],
) -> Path:
    """Write a model of these nodes, of any shape, without weights."""
    onnx.save(_model(helper.make_graph(nodes, "graph", inputs, outputs), {}), str(path))
    return path


def ultralytics_metadata(
    names: Sequence[str], width: int, height: int, stride: int = 32
) -> Dict[str, str]:
    """What Ultralytics' exporter writes into a file."""
    return {
        "author": "Ultralytics",
        "task": "detect",
        "stride": str(stride),
        "imgsz": str([height, width]),
        "names": str(dict(enumerate(names))),
    }


def write_recipe(
    model: Path, layout: str, *, classes: Sequence[str] = ("head",), width: int, height: int
) -> Path:
    """Write the recipe of one of these models beside it; ltrb cannot be run without."""
    byte_input = layout in _BYTE_INPUT
    recipe = {
        "name": "test-model",
        "file": model.name,
        "head": layout,
        "classes": list(classes),
        "input": {
            "width": width,
            "height": height,
            "color": "bgr" if byte_input else "rgb",
            "scale": 1.0 if byte_input else 1 / 255,
        },
    }
    path = model.with_suffix(".recipe.yaml")
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def encode(
    layout: str,
    boxes: Sequence[Box],
    width: int,
    height: int,
    classes: int,
    strides: Sequence[int] = STRIDES,
) -> "np.ndarray":
    """One picture's output, float32 without the batch axis, that decodes to ``boxes``.

    Each box sits in the cell of the finest level that holds its centre; the others are empty.
    """
    if layout == "end2end":
        answer = np.zeros((_END2END_ROWS, 6), np.float32)
        answer[: len(boxes)] = np.reshape(boxes, (-1, 6))
        return answer
    grid = _grid(width, height, strides)
    first_score = 5 if layout in _OBJECTNESS else 4
    answer = np.zeros((len(grid) * _ANCHORS.get(layout, 1), first_score + classes), np.float32)
    if layout == "ltrb":
        answer[:, 4:] = _NO_LOGIT
    for box in boxes:
        row = _cell_of(box, width, strides[0])
        answer[row, :4] = _geometry(layout, box, grid[row])
        if layout in _OBJECTNESS:
            answer[row, 4] = box.score
            answer[row, 5 + box.label] = 1.0
        else:
            answer[row, 4 + box.label] = _logit(box.score) if layout == "ltrb" else box.score
    return np.ascontiguousarray(answer.T) if layout in _CELLS_LAST else answer


def _grid(width: int, height: int, strides: Sequence[int]) -> List[Tuple[int, int, int]]:
    """(column, row, stride) of each cell, level by level."""
    return [
        (x, y, s) for s in strides for y in range(-(-height // s)) for x in range(-(-width // s))
    ]


def _cell_of(box: Box, width: int, stride: int) -> int:
    column, row = (int((a + b) / 2 // stride) for a, b in ((box.x1, box.x2), (box.y1, box.y2)))
    return row * -(-width // stride) + column


def _geometry(layout: str, box: Box, cell: Tuple[int, int, int]) -> Tuple[float, ...]:
    """The four numbers that describe ``box`` in the given cell."""
    column, row, stride = cell
    x, y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
    w, h = box.x2 - box.x1, box.y2 - box.y1
    if layout == "end2end":
        return (box.x1, box.y1, box.x2, box.y2)
    if layout == "yolox":
        return (x / stride - column, y / stride - row, np.log(w / stride), np.log(h / stride))
    if layout == "ltrb":
        left, top = column + 0.5 - box.x1 / stride, row + 0.5 - box.y1 / stride
        return (left, top, w / stride - left, h / stride - top)
    return (x, y, w, h)


def _logit(score: float) -> float:
    return float(np.log(score / (1 - score)))


def _score_constants(brightest: float, columns: int, rows: int) -> Dict[str, "np.ndarray"]:
    # A slope too small to see, so that of two equally bright cells just one is the brightest.
    slope = np.arange(rows * columns, dtype=np.float32).reshape(1, 1, rows, columns)
    return {
        "slope": slope * np.float32(brightest * 1e-6),
        "gain": np.array(3.0 / brightest, np.float32),
        "one": np.array(1.0, np.float32),
        "least": np.array(0.0, np.float32),
        "most": np.array(0.999, np.float32),
    }


def _score_nodes() -> List[onnx.NodeProto]:
    """From ``images`` to ``score_map``: about 1 in the middle of a spot, 0 elsewhere."""
    blur: Dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    return [
        helper.make_node("ReduceMean", ["images"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["cell"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("AveragePool", ["cell"], ["flat"], **blur),
        helper.make_node("Add", ["flat", "slope"], ["blurred"]),
        helper.make_node(
            "MaxPool", ["blurred"], ["brightest"], kernel_shape=[5, 5], pads=[2, 2, 2, 2]
        ),
        helper.make_node("GreaterOrEqual", ["blurred", "brightest"], ["is_peak"]),
        helper.make_node("Mul", ["blurred", "gain"], ["amplified"]),
        helper.make_node("Sub", ["amplified", "one"], ["shifted"]),
        helper.make_node("Clip", ["shifted", "least", "most"], ["clipped"]),
        helper.make_node("Where", ["is_peak", "clipped", "least"], ["score_map"]),
    ]


def _grid_nodes(layout: str) -> List[onnx.NodeProto]:
    """From ``score_map`` to ``output``: the finest level's cells, then the empty rest."""
    cells, features = (2, 1) if layout in _CELLS_LAST else (1, 2)
    return [
        helper.make_node("Reshape", ["score_map", "as_feature"], ["probability"]),
        helper.make_node("Mul", ["probability", "score_gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "score_offset"], ["score"]),
        helper.make_node("Concat", ["geometry", "score", "others"], ["finest"], axis=features),
        helper.make_node("Concat", ["finest", "rest"], ["output"], axis=cells),
    ]


def _top_nodes() -> List[onnx.NodeProto]:
    """From ``score_map`` to ``output``: the best cells as rows, as an export with NMS writes."""
    return [
        helper.make_node("Reshape", ["score_map", "as_list"], ["scores"]),
        helper.make_node("TopK", ["scores", "rows"], ["best", "where"], axis=0),
        helper.make_node("Gather", ["geometry", "where"], ["boxes"], axis=0),
        helper.make_node("Reshape", ["best", "as_column"], ["column"]),
        helper.make_node("Concat", ["boxes", "column", "label"], ["table"], axis=1),
        helper.make_node("Reshape", ["table", "as_batch"], ["output"]),
    ]


def _layout_constants(
    layout: str, empty: "np.ndarray", width: int, height: int
) -> Dict[str, "np.ndarray"]:
    geometry = _spot_boxes(layout, width, height)
    if layout == "end2end":
        return {
            "geometry": geometry,
            "label": np.zeros((_END2END_ROWS, 1), np.float32),
            "rows": np.array([_END2END_ROWS]),
            "as_list": np.array([-1]),
            "as_column": np.array([-1, 1]),
            "as_batch": np.array([1, _END2END_ROWS, 6]),
        }
    table = empty.T if layout in _CELLS_LAST else empty
    # Behind the score: the other classes' scores, or every class's where there is objectness.
    others = table[: len(geometry), 5:].copy()
    if layout in _OBJECTNESS:
        others[:, 0] = 1.0
    parts = {"geometry": geometry, "others": others, "rest": table[len(geometry) :]}
    if layout in _CELLS_LAST:
        parts = {name: np.ascontiguousarray(part.T) for name, part in parts.items()}
    gain, offset = (16.0, -8.0) if layout == "ltrb" else (1.0, 0.0)
    return {
        **{name: part[None] for name, part in parts.items()},
        "as_feature": np.array([1, 1, -1] if layout in _CELLS_LAST else [1, -1, 1]),
        "score_gain": np.array(gain, np.float32),
        "score_offset": np.array(offset, np.float32),
    }


def _spot_boxes(layout: str, width: int, height: int) -> "np.ndarray":
    """(cells of the finest level, 4): a box of SPOT_BOX around each cell's centre."""
    half, stride = SPOT_BOX / 2, STRIDES[0]
    rows = []
    for column, row, _ in _grid(width, height, (stride,)):
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        box = Box(x - half, y - half, x + half, y + half)
        rows.append(_geometry(layout, box, (column, row, stride)))
    return np.asarray(rows, np.float32)


def _rows_axis(layout: str) -> int:
    return 2 if layout in _CELLS_LAST else 1


def _open(axis: int, rows: int) -> Tuple[List[onnx.NodeProto], Dict[str, "np.ndarray"]]:
    """From ``output`` to ``opened``: the same, but nobody can tell its size beforehand."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["level"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["level", "none"], ["null"]),
        helper.make_node("Cast", ["null"], ["null_rows"], to=TensorProto.INT64),
        helper.make_node("Add", ["null_rows", "all_rows"], ["end"]),
        helper.make_node("Slice", ["output", "start", "end", "axis"], ["opened"]),
    ]
    constants = {
        "none": np.array(0.0, np.float32),
        "all_rows": np.array([rows]),
        "start": np.array([0]),
        "axis": np.array([axis]),
    }
    return nodes, constants


def _save(
    path: Path,
    nodes: List[onnx.NodeProto],
    constants: Dict[str, "np.ndarray"],
    size: Tuple[int, int],
    output_shape: Sequence[int],
    open_axis: Optional[int],
    metadata: Optional[Dict[str, str]],
) -> Path:
    width, height = size
    input_shape: List[object] = [1, 3, height, width]
    declared: List[object] = list(output_shape)
    name = "output"
    if open_axis is not None:
        input_shape = ["batch", 3, "height", "width"]
        more_nodes, more_constants = _open(open_axis, output_shape[open_axis])
        nodes, constants, name = nodes + more_nodes, {**constants, **more_constants}, "opened"
        declared[0], declared[open_axis] = "batch", "anchors"
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, declared)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = _model(graph, metadata or {})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def _model(graph: onnx.GraphProto, metadata: Dict[str, str]) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    helper.set_model_props(model, metadata)
    return model
