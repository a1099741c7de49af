"""How far a quantised file sees what its FP32 file sees; no labels are needed.

Average precision on a data set says little of another scene, where heads are smaller: there
scores lie near the thresholds, and a small error of the logits decides what is counted.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple

import numpy as np
import onnx

from edgecount.errors import DatasetError
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.recipe import Recipe
from edgecount.records import Float32Array, Int64Array, UInt8Array
from edgecount.toolchain.evaluate.average_precision import Found
from edgecount.toolchain.evaluate.matching import overlaps
from edgecount.toolchain.quantize.calibration_set.source import (
    Candidate,
    folder_candidates,
    stream_candidates,
)
from edgecount.toolchain.quantize.judge import decoded
from edgecount.toolchain.quantize.reference import SessionNetwork
from edgecount.toolchain.quantize.temperature import logits_of

FRAMES = 80
"""Frames that are usually compared: some hundred heads, a second for each form of a model."""

OVERLAP = 0.5


class Pairs(NamedTuple):
    """Raw logits (n,) of the heads that either file sees, in FP32 and in the other form.

    One that a file does not see at all has the logit of the low threshold there.
    """

    fp32: Float32Array
    form: Float32Array


@dataclass(frozen=True)
class Agreement:
    """How far a form of a model sees what FP32 sees, at the recipe's score threshold.

    Attributes:
        f1: 2 × common heads ÷ (FP32's heads + the form's), 0..1; 1 where neither sees any.
        apart: Mean distance of the two logits of a head, over heads that either sees.
        shift: Mean of the form's logit less FP32's: negative where the form is blinder.
        heads: Heads that either sees.
    """

    f1: float
    apart: float
    shift: float
    heads: int


class Scene:
    """Frames without labels, and what the FP32 model sees in them.

    Attributes:
        images: Number of frames.
        heads: Heads that FP32 sees in all of them, at the recipe's score threshold.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        recipe: Recipe,
        frames: Iterable[UInt8Array],
        workers: int = 2,
    ) -> None:
        """Prepare the frames and run the model as it is.

        Args:
            model: FP32.
            recipe: Its recipe.
            frames: (H, W, 3) uint8 BGR each, of any size.
            workers: Frames run side by side, one CPU thread each.

        Raises:
            DatasetError: There is no frame, or FP32 sees nothing in them.
            ModelError, EngineError: The model does not run.
        """
        self._recipe = recipe
        self._workers = workers
        network = SessionNetwork(model, fuse=False)
        size = recipe.input.width, recipe.input.height
        thresholds = Thresholds(recipe.low_threshold, recipe.nms_iou)
        detector = OnnxDetector(network, recipe, size=size, thresholds=thresholds)
        self._inputs = [detector.network_input(frame) for frame in frames]
        self.images = len(self._inputs)
        self._wanted = self._seen(network)
        self.heads = sum(int((f.scores >= recipe.score_threshold).sum()) for f in self._wanted)
        if not self.heads:
            raise DatasetError(
                f"the FP32 model sees nothing in the {self.images} frames: give a clip or pictures "
                f"in which it does at score {recipe.score_threshold:g}"
            )

    def __call__(self, model: onnx.ModelProto) -> Agreement:
        """Compare a form of the model. Raises ModelError or EngineError where it does not run."""
        return agreement_of(self.pairs(model), self._threshold())

    def pairs(self, model: onnx.ModelProto) -> Pairs:
        """The logits of each head in FP32 and in this form, frame after frame."""
        got = self._seen(SessionNetwork(model, fuse=False))
        rows = [self._of_frame(*both) for both in zip(self._wanted, got)]
        both = np.concatenate(rows) if rows else np.zeros((0, 2), np.float32)
        return Pairs(both[:, 0], both[:, 1])

    def _seen(self, network: SessionNetwork) -> List[Found]:
        with ThreadPoolExecutor(self._workers) as pool:
            outputs = list(pool.map(lambda one: network.run(one)[0], self._inputs))
        return [decoded(output, self._recipe, self._recipe.low_threshold) for output in outputs]

    def _of_frame(self, fp32: Found, form: Found) -> Float32Array:
        """(n, 2) logits of the heads of one frame that either sees."""
        partner = _partners(fp32, form)
        matched = partner >= 0
        alone = np.setdiff1d(np.arange(len(form.scores)), partner[matched])
        there = np.zeros(len(fp32.scores), np.float32)
        there[matched] = form.scores[partner[matched]]
        scores = np.stack(
            (
                np.concatenate((fp32.scores, np.zeros(len(alone), np.float32))),
                np.concatenate((there, form.scores[alone])),
            ),
            axis=1,
        )
        seen = scores.max(axis=1) >= self._recipe.score_threshold
        lowest = np.maximum(scores[seen], self._recipe.low_threshold)
        return self._raw_logits(lowest)

    def _threshold(self) -> float:
        return float(self._raw_logits(np.float32(self._recipe.score_threshold)))

    def _raw_logits(self, scores: Float32Array) -> Float32Array:
        """What the network itself said: the recipe's temperature is undone."""
        return (logits_of(scores) * self._recipe.temperature).astype(np.float32)


def agreement_of(pairs: Pairs, threshold: float) -> Agreement:
    """Sum up pairs of logits; ``threshold`` is the logit at which a head is seen."""
    # Logits went through float32: a head right at the threshold is seen by both or none.
    seen = [logits >= threshold - 1e-6 for logits in pairs]
    total = sum(int(one.sum()) for one in seen)
    common = int((seen[0] & seen[1]).sum())
    away = pairs.form - pairs.fp32
    return Agreement(
        f1=2 * common / total if total else 1.0,
        apart=float(np.abs(away).mean()) if len(away) else 0.0,
        shift=float(away.mean()) if len(away) else 0.0,
        heads=len(away),
    )


def spread_frames(source: str, count: int = FRAMES) -> List[UInt8Array]:
    """At most ``count`` frames of a clip or pictures of a folder, evenly spread.

    Raises:
        ConfigError, SourceError: The clip cannot be read.
        DatasetError: The folder holds no pictures.
    """
    return spread((candidate.image for candidate in _candidates(source)), count)


def spread(images: Iterable[UInt8Array], count: int) -> List[UInt8Array]:
    """At most ``count`` of the pictures, evenly spread; twice as many are kept meanwhile."""
    kept: List[UInt8Array] = []
    step = 1
    for number, image in enumerate(images):
        if number % step:
            continue
        kept.append(image)
        if len(kept) >= 2 * count:
            kept, step = kept[::2], 2 * step
    return [kept[i * len(kept) // count] for i in range(count)] if len(kept) > count else kept


def _candidates(source: str) -> Iterator[Candidate]:
    if Path(source).is_dir():
        return folder_candidates(Path(source), lambda _text: None)
    return stream_candidates(source, None, 0.0, lambda _text: None)


def _partners(fp32: Found, form: Found) -> Int64Array:
    """(n,) for each of FP32's boxes the form's box that it is, best score first; −1: none."""
    iou = overlaps(fp32.boxes, form.boxes)
    iou[fp32.classes[:, None] != form.classes[None, :]] = 0
    partner = np.full(len(fp32.boxes), -1, np.int64)
    for row in np.argsort(-fp32.scores, kind="stable"):
        if iou.shape[1] and iou[row].max() >= OVERLAP:
            partner[row] = iou[row].argmax()
            iou[:, partner[row]] = 0
    return partner
