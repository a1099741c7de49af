"""A detector: letterbox, network, decoder and NMS in one call."""

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from typing_extensions import Protocol

from edgecount import discovery
from edgecount.config import ModelSettings, TileSettings
from edgecount.errors import ConfigError, ModelError
from edgecount.infer import nms, tiles
from edgecount.infer import recipe as recipes
from edgecount.infer.heads.base import Candidates, Head, HeadSpec
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import Recipe
from edgecount.infer.tiles import Tile
from edgecount.records import (
    Detections,
    Float32Array,
    Int32Array,
    Int64Array,
    StageTimer,
    UInt8Array,
)

# No picture is this many pixels wide; areas of such boxes still fit float32.
_FARTHEST = np.float32(1e6)
# exp() of more than this leaves float32.
_LARGEST_LOGIT = 80.0

Suppress = Callable[[Float32Array, Float32Array, Int32Array, float], Int64Array]

# Sizes of pictures whose letterbox is kept; a folder of pictures may hold any number of sizes.
_MOST_SIZES = 64


class Network(Protocol):
    """Runs the network. Safe to call from several threads.

    ``input_shape`` and ``output_shape`` are as the file declares them: a dynamic axis is
    not an int.
    """

    input_shape: Tuple[object, ...]
    output_shape: Tuple[object, ...]

    def run(self, batch: Float32Array) -> Float32Array:
        """(B, 3, H, W) float32 → the first output, (B, …) float32. Raises EngineError."""
        ...


Variant = Callable[[Path, Tuple[int, int]], Optional[Tuple[Path, Network]]]


@dataclass(frozen=True)
class Thresholds:
    """What the detector keeps: least score, and the overlap at which two boxes are one."""

    score: float
    iou: float


class OnnxDetector:
    """The detector of a recipe. Safe to call from several threads."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        *,
        size: Tuple[int, int],
        thresholds: Thresholds,
        suppress: Suppress = nms.suppress,
        timer: Optional[StageTimer] = None,
    ) -> None:
        self.network = network
        self._input = recipe.input
        self._width, self._height = size
        self._thresholds = thresholds
        self._raw_threshold = untempered(thresholds.score, recipe.temperature)
        self._temperature = recipe.temperature
        self._suppress = suppress
        self._timer = timer or (lambda _stage, _seconds: None)
        self._head = _head(recipe)
        self._normalise = recipe.input.scale != 1.0 or any(recipe.input.mean)
        self._buffers = threading.local()
        self._fitted: Dict[Tuple[int, int], Letterbox] = {}

    @property
    def size(self) -> Tuple[int, int]:
        """Width and height of the network's input, pixels."""
        return self._width, self._height

    def detect(self, images: Sequence[UInt8Array]) -> List[Detections]:
        """Detect in each picture, one after the other; see :class:`~.base.Detector`."""
        return [self._detect_one(image) for image in images]

    def detect_tiled(self, image: UInt8Array, settings: TileSettings) -> Detections:
        """Detect in a frame that is cut into tiles, one after the other, as :meth:`detect`."""
        height, width = image.shape[:2]
        parts = [self.look(image, tile) for tile in tiles.cut(width, height, settings)]
        return self.merge(width, height, parts)

    def look(self, image: UInt8Array, tile: Tile) -> Candidates:
        """What ``tile`` of a frame shows and answers for; see :class:`~.base.TileDetector`."""
        output, box = self._run(tile.of(image))
        started = perf_counter()
        mine = self._decode_tile(output, box, tile)
        self._timer("post", perf_counter() - started)
        return mine

    def merge(self, width: int, height: int, parts: Sequence[Candidates]) -> Detections:
        """One NMS over the candidates of all tiles of a frame, as :class:`~.base.TileDetector`."""
        found = tiles.merge(parts)
        kept = self._suppress(*found, self._thresholds.iou)
        whole = np.array([width, height] * 2, np.float32)
        clipped = np.clip(found.boxes[kept], np.float32(0), whole)
        return self._detections(clipped, found.scores[kept], found.classes[kept])

    def prepare(self, image: UInt8Array, out: Float32Array) -> Letterbox:
        """Write the network's input for ``image`` into ``out``, (3, height, width) float32.

        Calibration and evaluation use this very function.
        """
        box = self._fit(image)
        box.apply(image, out, self._input.pad, self._input.color == "rgb")
        if self._normalise:
            self._normalised(out)
        return box

    def network_input(self, image: UInt8Array) -> Float32Array:
        """A new (1, 3, height, width) float32 input made of ``image``."""
        batch = np.empty((1, 3, self._height, self._width), np.float32)
        self.prepare(image, batch[0])
        return batch

    def _detect_one(self, image: UInt8Array) -> Detections:
        output, box = self._run(image)
        started = perf_counter()
        detections = self._decode(output, box)
        self._timer("post", perf_counter() - started)
        return detections

    def _run(self, image: UInt8Array) -> Tuple[Float32Array, Letterbox]:
        """The network's output for one picture, and how that was fitted in."""
        started = perf_counter()
        batch, box = self._input_of(image)
        prepared = perf_counter()
        output = self.network.run(batch)[0]
        self._timer("preprocess", prepared - started)
        self._timer("infer", perf_counter() - prepared)
        return output, box

    def _decode(self, output: Float32Array, box: Letterbox) -> Detections:
        boxes, scores, classes = self._candidates(output)
        kept = self._suppress(boxes, scores, classes, self._thresholds.iou)
        return self._detections(box.to_source(boxes[kept]), scores[kept], classes[kept])

    def _decode_tile(self, output: Float32Array, box: Letterbox, tile: Tile) -> Candidates:
        boxes, scores, classes = self._candidates(output)
        return tile.own(Candidates(box.unclipped(boxes), scores, classes))

    def _candidates(self, output: Float32Array) -> Candidates:
        # A broken network's numbers are dropped, not reported once a frame.
        with np.errstate(invalid="ignore", over="ignore"):
            found = self._head.decode(output, self._width, self._height, self._raw_threshold)
            return _sound(found)

    def _detections(
        self, boxes: Float32Array, scores: Float32Array, classes: Int32Array
    ) -> Detections:
        """Those clipped boxes that can be seen, with calibrated scores."""
        return Detections(*_visible(boxes, _tempered(scores, self._temperature), classes))

    def _fit(self, image: UInt8Array) -> Letterbox:
        height, width = image.shape[:2]
        box = self._fitted.get((width, height))
        if box is None:
            if len(self._fitted) >= _MOST_SIZES:
                self._fitted.clear()
            box = Letterbox.fit(width, height, self._width, self._height)
            self._fitted[width, height] = box
        return box

    def _input_of(self, image: UInt8Array) -> Tuple[Float32Array, Letterbox]:
        """The input for ``image`` in this thread's own buffer, and how it was fitted in."""
        kept: Optional[Tuple[Float32Array, Letterbox]] = getattr(self._buffers, "kept", None)
        box = self._fit(image)
        if kept is None or kept[1] is not box:
            # From here on the padding stays as it is while the pictures keep their size.
            batch = kept[0] if kept else np.empty((1, 3, self._height, self._width), np.float32)
            batch.fill(self._input.pad)
            if self._normalise:
                self._normalised(batch[0])
            kept = batch, box
            self._buffers.kept = kept
        picture = kept[0][0, :, : box.scaled_height, : box.scaled_width]
        box.place(image, kept[0][0], self._input.color == "rgb")
        if self._normalise:
            self._normalised(picture)
        return kept

    def _normalised(self, planes: Float32Array) -> None:
        planes -= np.asarray(self._input.mean, np.float32)[:, None, None]
        planes *= np.float32(self._input.scale)


def check_input(network: Network, path: Path) -> None:
    """Check that the network takes pictures.

    Raises:
        ModelError: It does not; the message names its input and ours.
    """
    shape = network.input_shape
    if len(shape) != 4 or not all(_may_be(x, want) for x, want in zip(shape, (1, 3))):
        raise ModelError(
            f"{path} has the input {list(shape)}; edgecount feeds one picture at a time, "
            "[1, 3, height, width]"
        )


def input_size(
    network: Network, recipe: Recipe, path: Path, asked: Optional[Tuple[int, int]]
) -> Tuple[int, int]:
    """Width and height to run at: what was asked for, else the recipe's.

    Raises:
        ModelError: The file's input has a fixed size and the recipe names another.
        ConfigError: The size asked for does not suit the model.
    """
    shape = network.input_shape
    width, height = asked or (recipe.input.width, recipe.input.height)
    for name, have, want in (("height", shape[2], height), ("width", shape[3], width)):
        if isinstance(have, int) and have != want:
            who = "the size asked for is" if asked else f"its recipe {recipe.name!r} says"
            kind = ConfigError if asked else ModelError
            raise kind(f"{path} has a fixed input {name} of {have}, but {who} {want}")
        if not isinstance(have, int) and want % recipe.input.multiple:
            raise ConfigError(
                f"input {name} {want} is no multiple of {recipe.input.multiple}, "
                f"which model {recipe.name!r} needs"
            )
    return width, height


def check_output(network: Network, recipe: Recipe, path: Path, size: Tuple[int, int]) -> None:
    """Check that the network's output is what the recipe's head decodes.

    A network that does not declare its output's size is run once to see it.

    Raises:
        ModelError: It is not; the message names both shapes.
        EngineError: The network does not run at this size.
    """
    expected = _head(recipe).expected_shape(*size)
    have = tuple(network.output_shape[1:])
    if not all(isinstance(x, int) for x in have):
        width, height = size
        have = network.run(np.zeros((1, 3, height, width), np.float32)).shape[1:]
    if len(have) != len(expected) or not all(map(_may_be, expected, have)):
        raise ModelError(
            f"{path} has the output {list(have)} per picture, but head {recipe.head!r} with "
            f"{len(recipe.classes)} classes at {size[0]}×{size[1]} expects {list(expected)}: "
            "correct head, classes, strides or input in its recipe"
        )


def create(
    settings: ModelSettings,
    open_network: Callable[[Path], Tuple[Network, Dict[str, str]]],
    timer: Optional[StageTimer] = None,
    variant: Optional[Variant] = None,
) -> Tuple[OnnxDetector, Recipe]:
    """Find the model that ``settings`` name, check it, and build its detector.

    Args:
        settings: Which model, and how it is run.
        open_network: Opens an ONNX file; returns the network and the file's metadata.
        timer: Called with stage name and seconds after each stage.
        variant: Opens what is run in the model's place, given the model's file and the width
            and height of its input: file and network; None where that is ``open_network``'s.

    Raises:
        ConfigError: No such model.
        ModelError: File and recipe do not fit together.
    """
    path, recipe = recipes.find(settings.name, settings.path)
    network, metadata = open_network(path)
    check_input(network, path)
    recipe = recipe or recipes.embedded(path, metadata)
    if recipe is None:
        shape = _asked_shape(network.input_shape, settings.input_size)
        recipe = recipes.infer(path, shape, network.output_shape, metadata)
    size = input_size(network, recipe, path, settings.input_size)
    other = None if variant is None else variant(path, size)
    chosen, network = other or (path, network)
    check_input(network, chosen)
    check_output(network, recipe, chosen, size)
    detector = OnnxDetector(
        network,
        recipe,
        size=size,
        thresholds=thresholds(recipe, settings),
        suppress=nms.suppress_opencv if settings.nms == "opencv" else nms.suppress,
        timer=timer,
    )
    return detector, recipe


def thresholds(recipe: Recipe, settings: ModelSettings) -> Thresholds:
    """What a detector keeps, by its recipe and what the user set."""
    return Thresholds(
        min(recipe.low_threshold, settings.score_threshold or 1.0),
        settings.nms_iou or recipe.nms_iou,
    )


def _may_be(axis: object, size: object) -> bool:
    """Whether an axis can have this size; a dynamic one (a name, or not positive) has any."""
    return not isinstance(axis, int) or axis < 1 or axis == size


def _asked_shape(shape: Tuple[object, ...], asked: Optional[Tuple[int, int]]) -> Tuple[object, ...]:
    """The input's shape with its dynamic sides as asked for."""
    if asked is None:
        return shape
    width, height = asked
    sides = zip(shape[2:], (height, width))
    return (*shape[:2], *(want if _may_be(have, want) else have for have, want in sides))


def _head(recipe: Recipe) -> Head:
    module = discovery.load(recipes.HEADS_PACKAGE, recipe.head, f"head of model {recipe.name}")
    head: Head = module.create(
        HeadSpec(len(recipe.classes), recipe.wanted(), tuple(recipe.strides))
    )
    return head


def _sound(candidates: Candidates) -> Candidates:
    """Those candidates that are boxes at all.

    A NaN, an infinity, or a box turned inside out overlaps everything by the comparisons
    of NMS, so that one would suppress all others.
    """
    boxes, scores, classes = candidates
    near = np.abs(boxes) < _FARTHEST  # false for NaN, too
    sides = boxes[:, 2:] > boxes[:, :2]
    finite = np.isfinite(scores)
    if near.all() and sides.all() and finite.all():
        return candidates
    sound = near.all(axis=1) & sides.all(axis=1) & finite
    return Candidates(boxes[sound], scores[sound], classes[sound])


def _visible(
    boxes: Float32Array, scores: Float32Array, classes: Int32Array
) -> Tuple[Float32Array, Float32Array, Int32Array]:
    """Without boxes of which clipping left nothing: they lay in the padding alone."""
    sides = boxes[:, 2:] > boxes[:, :2]
    if sides.all():
        return boxes, scores, classes
    seen = sides.all(axis=1)
    return boxes[seen], scores[seen], classes[seen]


def _tempered(scores: Float32Array, temperature: float) -> Float32Array:
    """Calibrated probabilities: the sigmoid of logit ÷ temperature (Guo et al. 2017, §4.2)."""
    if temperature == 1.0:
        return scores
    likely = np.clip(scores, np.float32(1e-7), np.float32(1 - 1e-7))
    logits = np.log(likely / (np.float32(1) - likely)) / np.float32(temperature)
    calibrated: Float32Array = np.float32(1) / (
        np.float32(1) + np.exp(-np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT))
    )
    return calibrated


def untempered(score: float, temperature: float) -> float:
    """The raw score whose calibrated value is ``score``."""
    if temperature == 1.0 or score >= 1.0:
        return score
    logit = math.log(score / (1.0 - score)) * temperature
    return 1.0 / (1.0 + math.exp(-max(-_LARGEST_LOGIT, min(logit, _LARGEST_LOGIT))))
