"""Outputs of detectors for tests of the NMS kernel, and what the reference says of them."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from edgecount.config import Point, TileSettings
from edgecount.count.masks import apply_masks
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.heads.base import cell_count
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.infer.tiles import cut
from edgecount.records import Detections, Float32Array

HEADS = ("yolox", "yolov5", "yolov8", "ltrb", "end2end")
_CELLS_LAST = ("yolov8", "ltrb")


class _Shape:
    """Only the shape of a network."""

    input_shape: Tuple[object, ...] = ()
    output_shape: Tuple[object, ...] = ()

    def run(self, batch: Float32Array) -> Float32Array:
        raise NotImplementedError


def recipe(head: str, size: Tuple[int, int], classes: int = 1, **changes: Any) -> Recipe:
    """A recipe of a made-up model; of several classes all but the second are counted."""
    names = [f"c{i}" for i in range(classes)]
    values: Dict[str, Any] = {
        "name": "made-up",
        "file": "model.onnx",
        "head": head,
        "classes": names,
        "counted": [n for n in names if classes == 1 or n != "c1"],
        "input": InputRecipe(width=size[0], height=size[1]),
        **changes,
    }
    return Recipe(**values)


def rows_of(recipe: Recipe, size: Tuple[int, int]) -> int:
    """Candidates of a picture."""
    if recipe.head == "end2end":
        return 300
    count = cell_count(*size, recipe.strides)
    return 3 * count if recipe.head == "yolov5" else count


def output(
    recipe: Recipe,
    size: Tuple[int, int],
    heads: int,
    random: np.random.Generator,
    *,
    each: int = 6,
    ties: bool = False,
) -> Float32Array:
    """An output in which ``heads`` heads fire ``each`` rows, and the rest is background.

    Args:
        recipe: Of the model.
        size: Width and height of its input.
        heads: How many.
        random: Source of chance.
        each: Rows that see one head.
        ties: Scores are multiples of 1/16, so that many are equal.
    """
    rows, classes = rows_of(recipe, size), len(recipe.classes)
    fires = min(rows, heads * each)
    at = np.sort(random.permutation(rows)[:fires])
    owner = random.integers(0, max(heads, 1), fires)
    centre = random.uniform((0, 0), size, (max(heads, 1), 2))[owner]
    side = random.uniform(8, 40, (max(heads, 1), 1))[owner]
    centre = centre + random.normal(0, 0.08, (fires, 2)) * side
    sides = side * random.uniform(0.85, 1.15, (fires, 2))
    scores = random.uniform(0.15, 0.98, (fires, classes))
    if ties:
        scores = np.round(scores * 16) / 16
    made = np.zeros((rows, 4 + classes), np.float64)
    made[:, :2] = random.uniform((0, 0), size, (rows, 2))
    made[:, 2:4] = random.uniform(4, 60, (rows, 2))
    made[:, 4:] = random.uniform(0, 0.05, (rows, classes))
    made[at, :2], made[at, 2:4], made[at, 4:] = centre, sides, scores
    return _encoded(recipe, size, made, random)


def _encoded(
    recipe: Recipe, size: Tuple[int, int], made: NDArray[Any], random: np.random.Generator
) -> Float32Array:
    """Centre, size and class scores as the head writes them."""
    points, strides = _grid(size, recipe.strides)
    box, scores = made[:, :4], made[:, 4:]
    if recipe.head == "yolox":
        box = np.concatenate(
            [(box[:, :2] - points) / strides, np.log(box[:, 2:] / strides)], axis=1
        )
    if recipe.head in ("yolox", "yolov5"):
        objectness = random.uniform(0.97, 1.0, (len(made), 1))
        return np.concatenate([box, objectness, scores], axis=1).astype(np.float32)
    if recipe.head == "yolov8":
        return np.ascontiguousarray(made.T, np.float32)
    low, high = box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2
    if recipe.head == "ltrb":
        centre = points + 0.5 * strides
        logits = np.log(np.clip(scores, 1e-6, 1 - 1e-6) / (1 - np.clip(scores, 1e-6, 1 - 1e-6)))
        sides = np.concatenate([(centre - low) / strides, (high - centre) / strides, logits], 1)
        return np.ascontiguousarray(sides.T, np.float32)
    best = scores.argmax(axis=1)
    top = scores[np.arange(len(scores)), best]
    return np.column_stack([low, high, top, best]).astype(np.float32)


def _grid(size: Tuple[int, int], strides: Sequence[int]) -> Tuple[NDArray[Any], NDArray[Any]]:
    points: List[NDArray[Any]] = []
    scales: List[NDArray[Any]] = []
    for stride in strides:
        y, x = np.mgrid[0 : -(-size[1] // stride), 0 : -(-size[0] // stride)]
        points.append(np.stack([x, y], -1).reshape(-1, 2) * stride)
        scales.append(np.full((x.size, 1), stride))
    return np.concatenate(points), np.concatenate(scales)


def expected(
    recipe: Recipe,
    size: Tuple[int, int],
    thresholds: Thresholds,
    output: NDArray[Any],
    box: Letterbox,
    ignore: Optional[Sequence[Sequence[Point]]] = None,
) -> Detections:
    """What the CPU makes of one picture's output."""
    detector = OnnxDetector(_Shape(), recipe, size=size, thresholds=thresholds)
    found = detector._decode(output.astype(np.float32), box)
    return apply_masks(found, ignore or (), box.source_width, box.source_height, recipe.anchor)


def expected_in_tiles(
    recipe: Recipe,
    size: Tuple[int, int],
    thresholds: Thresholds,
    outputs: Sequence[NDArray[Any]],
    frame: Tuple[int, int],
    tiles: TileSettings,
    ignore: Optional[Sequence[Sequence[Point]]] = None,
) -> Detections:
    """What the CPU makes of the outputs of all tiles of a frame."""
    detector = OnnxDetector(_Shape(), recipe, size=size, thresholds=thresholds)
    parts = [
        detector._decode_tile(
            output.astype(np.float32), Letterbox.fit(tile.width, tile.height, *size), tile
        )
        for output, tile in zip(outputs, cut(*frame, tiles))
    ]
    return apply_masks(detector.merge(*frame, parts), ignore or (), *frame, recipe.anchor)
