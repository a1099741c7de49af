"""Temperature scaling: scores that mean what they say (Guo et al. 2017, section 4.2).

A detection's score should be the probability that it is one. Dividing the score's logit by
one number, fitted on labelled pictures that the model was not trained on, changes no ranking
and so no average precision; but a threshold of 0.4 then means the same for the FP32 model and
for its quantised variants.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np
import numpy.typing as npt

from edgecount.errors import DatasetError, ModelError
from edgecount.infer.recipe import Recipe
from edgecount.records import BoolArray
from edgecount.toolchain.evaluate.detect import LOWEST, Observed, observe
from edgecount.toolchain.evaluate.matching import labelled_scores

OVERLAP = 0.5  # a detection with this much of a labelled box is true
BINS = 15
FEWEST = 100  # detections below which a fit says little
_THRESHOLDS = ("score_threshold", "low_threshold")
_EDGE = 1e-6
_STEPS = 60
_TOLERANCE = 1e-9
_LEAST, _MOST = 0.05, 20.0

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How well scores are probabilities.

    Attributes:
        ece: Expected calibration error, 0..1: mean distance of score and share of true
            detections over equal-width bins, weighted by their number (Naeini et al. 2015).
        nll: Mean negative log-likelihood of the labels.
    """

    ece: float
    nll: float


@dataclass(frozen=True)
class TemperatureReport:
    """A fitted temperature and what it does.

    Attributes:
        model: Name of the model.
        temperature: Fitted on all pictures.
        detections: Detections that were labelled; ``true`` of them are right.
        before: Calibration of the raw scores.
        after: Calibration with a temperature fitted on the other half of the pictures each,
            so that none is judged by what it was fitted on.
        recipe_temperature: What the recipe says now.
        thresholds: The recipe's score thresholds at the fitted temperature: the same detections
            pass them as do now.
    """

    model: str
    temperature: float
    detections: int
    true: int
    before: Calibration
    after: Calibration
    recipe_temperature: float
    thresholds: Dict[str, float]

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return asdict(self)


def logits_of(scores: npt.ArrayLike) -> Float64Array:
    """The inverse of the sigmoid, finite also for 0 and 1."""
    clipped = np.clip(np.asarray(scores, np.float64), _EDGE, 1 - _EDGE)
    logits: Float64Array = np.log(clipped / (1 - clipped))
    return logits


def fit(logits: Float64Array, true: BoolArray) -> float:
    """The temperature of the least negative log-likelihood.

    In ``1 / temperature`` that is convex with a simple second derivative: Newton's method with
    halved steps where it overshoots.

    Args:
        logits: (n,) of the scores.
        true: (n,) whether each detection is right.

    Returns:
        0.05 to 20; 1 where all or none of the detections are right, so that nothing can be
        learned.
    """
    if not 0 < true.sum() < len(true):
        return 1.0
    signed = np.where(true, logits, -logits)
    inverse, loss = 1.0, _loss(signed, 1.0)
    for _ in range(_STEPS):
        wrong = _sigmoid(-inverse * signed)
        slope = -float((wrong * signed).mean())
        bend = float((wrong * (1 - wrong) * signed**2).mean())
        step = slope / max(bend, _TOLERANCE)
        tried = min(max(inverse - step, 1 / _MOST), 1 / _LEAST)
        while _loss(signed, tried) > loss and abs(tried - inverse) > _TOLERANCE:
            tried = (tried + inverse) / 2
        if abs(tried - inverse) <= _TOLERANCE:
            break
        inverse, loss = tried, _loss(signed, tried)
    return 1 / inverse


def calibration(logits: Float64Array, true: BoolArray, temperature: float = 1.0) -> Calibration:
    """Calibration of scores whose logits are divided by a temperature; zeros without any."""
    if not len(logits):
        return Calibration(0.0, 0.0)
    scaled = logits / temperature
    return Calibration(
        expected_error(_sigmoid(scaled), true), _loss(np.where(true, scaled, -scaled), 1.0)
    )


def expected_error(scores: npt.ArrayLike, true: BoolArray, bins: int = BINS) -> float:
    """Expected calibration error of scores (n,) in 0..1 over bins of equal width."""
    score = np.asarray(scores, np.float64)
    if not len(score):
        return 0.0
    which = np.minimum((score * bins).astype(np.int64), bins - 1)
    apart = np.bincount(which, score, bins) - np.bincount(which, true, bins)
    return float(np.abs(apart).sum() / len(score))


def measure(
    model: str,
    data: Path,
    size: Optional[int] = None,
    splits: Sequence[str] = (),
    threads: int = 1,
) -> TemperatureReport:
    """Fit the temperature of a model on a labelled data set that it was not trained on.

    Args:
        model: Name of a shipped model, or path of an ONNX file or model folder.
        data: Folder in YOLO format.
        size: Side of the network's input; the recipe's where None.
        splits: Split folders to use; everything where empty.
        threads: CPU threads of the network.

    Raises:
        ConfigError: No such model.
        ModelError: The model cannot be loaded.
        DatasetError: The data cannot be read, or there is too little of it.
    """
    return judge(observe(model, data, size, splits, threads))


def judge(seen: Observed) -> TemperatureReport:
    """The temperature that suits what was seen.

    Raises:
        DatasetError: Too little was seen.
    """
    # Undo what the recipe does to scores now: its temperature is what is looked for.
    halves = [
        (logits_of(scores) * seen.recipe.temperature, true)
        for scores, true in (
            labelled_scores(seen.truths[part::2], seen.found[part::2], OVERLAP) for part in (0, 1)
        )
    ]
    logits, true = (np.concatenate(x) for x in zip(*halves))
    if len(logits) < FEWEST:
        raise DatasetError(
            f"{len(logits)} detections above score {LOWEST} are too few to fit a temperature "
            f"(at least {FEWEST}): give more labelled pictures"
        )
    temperature = fit(logits, true)
    swapped = [fit(*halves[1]), fit(*halves[0])]
    held_out = np.concatenate([half[0] / t for half, t in zip(halves, swapped)])
    return TemperatureReport(
        model=seen.recipe.name,
        temperature=temperature,
        detections=len(logits),
        true=int(true.sum()),
        before=calibration(logits, true),
        after=calibration(held_out, true),
        recipe_temperature=seen.recipe.temperature,
        thresholds=moved_thresholds(seen.recipe, temperature),
    )


def moved_thresholds(recipe: Recipe, temperature: float) -> Dict[str, float]:
    """The recipe's score thresholds for another temperature: the same raw scores pass."""
    share = recipe.temperature / temperature
    return {name: float(_sigmoid(logits_of(getattr(recipe, name)) * share)) for name in _THRESHOLDS}


def write_into(recipe: Path, values: Mapping[str, float]) -> None:
    """Change numbers in a recipe file, and nothing else in it.

    Args:
        recipe: YAML file.
        values: Key at the top level → new value; a key that is not there is added.

    Raises:
        ModelError: The file cannot be read or written.
    """
    try:
        text = recipe.read_text(encoding="utf-8")
        for key, value in values.items():
            line = f"{key}: {value:.4g}"
            text, count = re.subn(rf"(?m)^{key}:[^#\n]*?(?=\s*(#|$))", line, text)
            if not count:
                text = text.rstrip("\n") + f"\n{line}\n"
        part = recipe.with_name(recipe.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(recipe)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot write the temperature into {recipe}: {error}") from error


def _loss(signed: Float64Array, inverse: float) -> float:
    return float(np.logaddexp(0, -inverse * signed).mean())


def _sigmoid(logits: Float64Array) -> Float64Array:
    probability: Float64Array = np.exp(-np.logaddexp(0, -logits))
    return probability
