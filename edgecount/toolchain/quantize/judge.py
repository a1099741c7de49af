"""Judge quantised forms of a model: output against FP32's, and average precision."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import numpy as np
import onnx

from edgecount.errors import DatasetError
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.recipe import Recipe
from edgecount.records import Float32Array
from edgecount.toolchain.evaluate.average_precision import Found, Truth, average_precision
from edgecount.toolchain.evaluate.detect import lowest_score, read_picture
from edgecount.toolchain.quantize.reference import SessionNetwork, signal_to_noise
from edgecount.toolchain.yolo_files import find_pairs, read_labels

_POINTS = 100.0


@dataclass(frozen=True)
class Verdict:
    """What a form of the model is worth.

    Attributes:
        ap50: Average precision at overlap 0.5, per cent.
        sqnr_db: Signal to quantisation noise of the raw output, against FP32, dB.
    """

    ap50: float
    sqnr_db: float


class Judge:
    """A model, its FP32 outputs, and labelled pictures.

    Every form is run as it is written (:mod:`.reference`), so that the verdict does not depend
    on the arithmetic of this machine.

    Attributes:
        fp32: Average precision of the model as it is, per cent.
        images: Number of pictures.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        recipe: Recipe,
        pairs: Sequence[Tuple[Path, Path]],
        workers: int = 1,
    ) -> None:
        """Read the pictures and run the model as it is.

        Args:
            model: FP32.
            recipe: Its recipe.
            pairs: Pictures and their label files.
            workers: Pictures run side by side.

        Raises:
            DatasetError: A picture or its labels cannot be read.
            ModelError, EngineError: The model does not run.
        """
        self._recipe = recipe
        self._workers = workers
        size = recipe.input.width, recipe.input.height
        network = SessionNetwork(model, fuse=False)
        detector = OnnxDetector(network, recipe, size=size, thresholds=_thresholds(recipe))
        self._inputs: List[Float32Array] = []
        self._truths: List[Truth] = []
        for picture, labels in pairs:
            image = read_picture(picture)
            prepared = np.empty((3, size[1], size[0]), np.float32)
            box = detector.prepare(image, prepared)
            self._inputs.append(prepared)
            self._truths.append(
                _truth(labels, box.scaled_width, box.scaled_height, len(recipe.classes))
            )
        self.images = len(self._inputs)
        self._wanted = self._outputs(network)
        self.fp32 = self._average_precision(self._wanted)

    def __call__(self, model: onnx.ModelProto) -> Verdict:
        """Judge a form of the model. Raises ModelError or EngineError where it does not run."""
        got = self._outputs(SessionNetwork(model, fuse=False))
        return Verdict(self._average_precision(got), signal_to_noise(self._wanted, got))

    def _outputs(self, network: SessionNetwork) -> List[Float32Array]:
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(lambda one: network.run(one[None])[0], self._inputs))

    def _average_precision(self, outputs: Sequence[Float32Array]) -> float:
        lowest = lowest_score(self._recipe)
        found = [decoded(output, self._recipe, lowest) for output in outputs]
        return _POINTS * average_precision(self._truths, found)["ap50"]


def decoded(output: Float32Array, recipe: Recipe, lowest: float) -> Found:
    """Detections of one output of the network, in pixels of its input, best score first.

    Args:
        output: One picture's, without the batch axis.
        recipe: The model's recipe.
        lowest: Least score, after the recipe's temperature.
    """
    size = recipe.input.width, recipe.input.height
    thresholds = Thresholds(lowest, recipe.nms_iou)
    replay = OnnxDetector(_Replay(output), recipe, size=size, thresholds=thresholds)
    # A picture of the input's own size is not scaled, so boxes stay where they are.
    (seen,) = replay.detect([np.zeros((size[1], size[0], 3), np.uint8)])
    return Found(seen.boxes, seen.scores, seen.classes.astype(np.int64))


class _Replay:
    """A network that gives one output, whatever it is shown."""

    input_shape: Tuple[object, ...] = ()
    output_shape: Tuple[object, ...] = ()

    def __init__(self, output: Float32Array) -> None:
        self._output = output[None]

    def run(self, _batch: Float32Array) -> Float32Array:
        return self._output


def some_pairs(data: Path, splits: Sequence[str], count: Optional[int]) -> List[Tuple[Path, Path]]:
    """At most ``count`` pictures of a data set, evenly spread; all where None.

    Raises:
        DatasetError: There is none.
    """
    pairs = find_pairs(data, splits or None)
    if count is None or count >= len(pairs):
        return pairs
    if count < 1:
        raise DatasetError("at least one picture is needed")
    return [pairs[i * len(pairs) // count] for i in range(count)]


def _thresholds(recipe: Recipe) -> Thresholds:
    return Thresholds(lowest_score(recipe), recipe.nms_iou)


def _truth(labels: Path, width: int, height: int, classes: int) -> Truth:
    """Labels in pixels of a picture that is scaled to ``width`` × ``height``."""
    rows = read_labels(labels, classes)
    centre, half = rows[:, 1:3], rows[:, 3:5] / 2
    corners = np.concatenate((centre - half, centre + half), 1)
    boxes = (corners * np.array((width, height, width, height))).astype(np.float32)
    return Truth(boxes, rows[:, 0].astype(np.int64), np.zeros(len(rows), np.bool_))
