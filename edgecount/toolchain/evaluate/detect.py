"""How well a detector finds what is labelled: the very pipeline that counts, over a data set."""

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from edgecount.config import ModelSettings, TileSettings
from edgecount.errors import DatasetError
from edgecount.infer import detector
from edgecount.infer.base import Detector
from edgecount.infer.onnxruntime import open_network
from edgecount.infer.recipe import Recipe, model_keys
from edgecount.infer.tiles import scale as scale_of
from edgecount.records import BoolArray, Float32Array, UInt8Array
from edgecount.toolchain.evaluate.average_precision import Found, Truth, average_precision
from edgecount.toolchain.evaluate.tiled import in_tiles
from edgecount.toolchain.yolo_files import find_pairs, read_labels

LOWEST = 0.01  # raw scores below are not worth ranking
MATCH = 0.3  # overlap at which a head counts as found
SIZES = (0, 6, 8, 10, 12, 16, 24, 32, 64, 1000)  # sides of heads in pixels of the network's input


@dataclass(frozen=True)
class SizeRecall:
    """How many heads of one range of sizes are found.

    Attributes:
        low: Smallest side (root of the area) in pixels of the network's input.
        high: Largest side.
        boxes: Labelled heads of that size.
        recall: Part of them that is found at the recipe's score threshold and overlap 0.3.
    """

    low: int
    high: int
    boxes: int
    recall: float


@dataclass(frozen=True)
class DetectionReport:
    """AP as COCO computes it, and what happens at the recipe's score threshold (overlap 0.3)."""

    model: str
    images: int
    boxes: int
    width: int
    height: int
    threads: int
    tiles: Optional[Dict[str, Any]]
    ap30: float
    ap50: float
    ap50_95: float
    recall50: float
    score_threshold: float
    precision: float
    recall: float
    ms_per_image: float
    by_size: List[SizeRecall]

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Observed:
    """What a detector saw in a data set.

    Attributes:
        recipe: The detector's recipe; scores are calibrated by its temperature.
        width, height: Size of the network's input, pixels.
        pictures: The pictures, in order.
        truths: What is in each of them, in pixels of the picture.
        found: What was found there, best score first.
        scales: Pixels of the input per pixel of each picture.
        seconds: Time of all detector calls.
    """

    recipe: Recipe
    width: int
    height: int
    pictures: List[Path]
    truths: List[Truth]
    found: List[Found]
    scales: List[float]
    seconds: float


def evaluate(
    model: str,
    data: Path,
    size: Optional[int] = None,
    splits: Sequence[str] = (),
    threads: int = 1,
    tiles: Optional[TileSettings] = None,
) -> DetectionReport:
    """Run a model over a data set in YOLO format.

    Args:
        model: Name of a shipped model, or path of an ONNX file or model folder.
        data: Folder in YOLO format.
        size: Side of the network's input; the recipe's where None.
        splits: Split folders to use; everything where empty.
        threads: CPU threads of the network.
        tiles: How each picture is cut; None for not at all.

    Raises:
        ConfigError: No such model.
        ModelError: The model cannot be loaded.
        DatasetError: The data cannot be read.
    """
    seen = observe(model, data, size, splits, threads, tiles)
    recipe = seen.recipe
    precision, recall, by_size = _at_threshold(
        seen.truths, seen.found, seen.scales, recipe.score_threshold
    )
    return DetectionReport(
        model=recipe.name,
        images=len(seen.pictures),
        boxes=sum(len(t.boxes) for t in seen.truths),
        width=seen.width,
        height=seen.height,
        threads=threads,
        tiles=None if tiles is None else tiles.model_dump(),
        score_threshold=recipe.score_threshold,
        precision=precision,
        recall=recall,
        ms_per_image=1e3 * seen.seconds / len(seen.pictures),
        by_size=by_size,
        **average_precision(seen.truths, seen.found),
    )


def observe(
    model: str,
    data: Path,
    size: Optional[int] = None,
    splits: Sequence[str] = (),
    threads: int = 1,
    tiles: Optional[TileSettings] = None,
) -> Observed:
    """Detect in every picture of a data set, down to the raw score ``LOWEST``.

    Args and errors are those of :func:`evaluate`.
    """
    settings = _settings(model, size)
    finder, recipe = detector.create(settings, partial(open_network, threads=threads))
    pairs = find_pairs(data, splits or None)
    cutting = in_tiles(_unselective(finder, recipe), tiles)
    return look(cutting, recipe, finder.size, pairs, tiles)


def look(
    finder: Detector,
    recipe: Recipe,
    size: Tuple[int, int],
    pairs: Sequence[Tuple[Path, Path]],
    tiles: Optional[TileSettings] = None,
) -> Observed:
    """Detect in pictures with a detector that is at hand.

    Args:
        finder: Should hand out every candidate of at least the raw score ``LOWEST``.
        recipe: Its recipe.
        size: Width and height of the network's input.
        pairs: Pictures and their label files.
        tiles: How the finder cuts pictures, which sizes of heads depend on.

    Raises:
        DatasetError: A picture or label cannot be read.
    """
    width, height = size
    truths, found, scales, seconds = [], [], [], 0.0
    for picture, labels in pairs:
        image = read_picture(picture)
        truth = _truth(labels, image.shape[1], image.shape[0], len(recipe.classes))
        started = perf_counter()
        (detections,) = finder.detect([image])
        seconds += perf_counter() - started
        truths.append(truth)
        kinds = detections.classes.astype(np.int64)
        found.append(Found(detections.boxes, detections.scores, kinds))
        scales.append(scale_of((image.shape[1], image.shape[0]), size, tiles))
    pictures = [picture for picture, _ in pairs]
    return Observed(recipe, width, height, pictures, truths, found, scales, seconds)


def read_picture(path: Path) -> UInt8Array:
    """A picture as (H, W, 3) uint8 BGR.

    Raises:
        DatasetError: It cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{path} cannot be read as a picture")
    return np.asarray(image, np.uint8)


def _settings(model: str, size: Optional[int]) -> ModelSettings:
    asked = (size, size) if size else None
    return ModelSettings(**model_keys(model), input_size=asked)


def lowest_score(recipe: Recipe) -> float:
    """What the raw score ``LOWEST`` is after the recipe's temperature."""
    logit = math.log(LOWEST / (1 - LOWEST))
    return 1 / (1 + math.exp(-logit / recipe.temperature))


def _unselective(finder: detector.OnnxDetector, recipe: Recipe) -> detector.OnnxDetector:
    """The same detector, which hands out every candidate of at least the raw score ``LOWEST``."""
    thresholds = detector.Thresholds(lowest_score(recipe), recipe.nms_iou)
    return detector.OnnxDetector(finder.network, recipe, size=finder.size, thresholds=thresholds)


def _truth(labels: Path, width: int, height: int, classes: int) -> Truth:
    rows = read_labels(labels, classes)
    centre, half = rows[:, 1:3], rows[:, 3:5] / 2
    corners = np.concatenate((centre - half, centre + half), 1)
    boxes = (corners * np.array((width, height, width, height))).astype(np.float32)
    return Truth(boxes, rows[:, 0].astype(np.int64), np.zeros(len(rows), np.bool_))


def _at_threshold(
    truths: Sequence[Truth], found: Sequence[Found], scales: Sequence[float], threshold: float
) -> Tuple[float, float, List[SizeRecall]]:
    """Precision, recall, and recall by size, at one score threshold."""
    hits, sides, kept = [], [], 0
    for truth, one, scale in zip(truths, found, scales):
        sure = one.scores >= threshold
        kept += int(sure.sum())
        hits.append(match(truth.boxes, one.boxes[sure]))
        size = (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(1) ** 0.5
        sides.append(size * scale)
    hit, side = np.concatenate(hits), np.concatenate(sides)
    by_size = []
    for low, high in zip(SIZES, SIZES[1:]):
        inside = (side >= low) & (side < high)
        if inside.any():
            by_size.append(SizeRecall(low, high, int(inside.sum()), float(hit[inside].mean())))
    recall = float(hit.mean()) if len(hit) else 0.0
    return (float(hit.sum()) / kept if kept else 0.0), recall, by_size


def match(truth: Float32Array, found: Float32Array) -> BoolArray:
    """Which true boxes (n, 4) are found: each by one of (m, 4), best first, at overlap 0.3."""
    hit = np.zeros(len(truth), np.bool_)
    if not len(truth):
        return hit
    size = (truth[:, 2:] - truth[:, :2]).prod(1)
    for box in found:
        side = np.minimum(truth[:, 2:], box[2:]) - np.maximum(truth[:, :2], box[:2])
        common = np.clip(side, 0, None).prod(1)
        overlap = common / (size + (box[2:] - box[:2]).prod() - common)
        overlap[hit] = 0
        best = int(overlap.argmax())
        if overlap[best] >= MATCH:
            hit[best] = True
    return hit
