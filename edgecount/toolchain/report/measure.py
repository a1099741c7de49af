"""What one precision costs and gives: accuracy, calibration of scores, counts, time, memory."""

import hashlib
import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import psutil

from edgecount.errors import EngineError
from edgecount.infer.recipe import Recipe
from edgecount.records import Float32Array, UInt8Array
from edgecount.toolchain.evaluate import count
from edgecount.toolchain.evaluate.average_precision import average_precision
from edgecount.toolchain.evaluate.detect import Observed, look, lowest_score
from edgecount.toolchain.evaluate.matching import labelled_scores
from edgecount.toolchain.evaluate.speed import Milliseconds, fluctuation, time_in_turns
from edgecount.toolchain.evaluate.truth import CountTruth
from edgecount.toolchain.quantize.temperature import OVERLAP, expected_error
from edgecount.toolchain.report.detectors import Opened, Place, open_detector
from edgecount.toolchain.report.variants import Variant

_MEMORY_CALLS = 5
_MEMORY_WAIT_S = 120.0


@dataclass(frozen=True)
class Accuracy:
    """Average precision and calibration, 0..1, and what was seen."""

    ap30: float
    ap50: float
    ap50_95: float
    ece: float
    seen: Observed


@dataclass(frozen=True)
class Counted:
    """Crossings of a clip's lines: true ones, those missed and extra, and the totals' error.

    ``error`` is the sum over lines and directions of the difference of the two totals.
    """

    true: int
    missed: int
    extra: int
    error: int


@dataclass(frozen=True)
class Speed:
    """One picture after the other, from the picture to its detections.

    Attributes:
        fps: Pictures per second, from the median.
        p50_ms, p99_ms: Milliseconds per picture.
        fluctuation: Coefficient of variation of the rate over ten pictures each.
    """

    fps: float
    p50_ms: float
    p99_ms: float
    fluctuation: float


@dataclass(frozen=True)
class Row:
    """One row of the report.

    ``memory_mb`` is what loading and running the file adds to a process, 0 where unknown.
    """

    variant: Variant
    bytes: int
    sha256: str
    accuracy: Accuracy
    speed: Speed
    memory_mb: float
    counted: Optional[Counted]


@dataclass(frozen=True)
class Clip:
    """A clip and its true crossings."""

    source: str
    truth: CountTruth


@dataclass(frozen=True)
class Task:
    """What is measured with.

    Attributes:
        recipe: The recipe that all variants share.
        place: Where they run.
        pairs: Labelled pictures.
        clip: A clip whose crossings are known; counts are left out where None.
        turns: Rounds of the measurement of time.
    """

    recipe: Recipe
    place: Place
    pairs: Sequence[Tuple[Path, Path]]
    clip: Optional[Clip] = None
    turns: int = 20


Progress = Callable[[str], None]


def measure(
    variants: Sequence[Variant], task: Task, image: UInt8Array, progress: Progress
) -> List[Row]:
    """Measure all variants; times are taken in turns.

    Args:
        variants: What to compare.
        task: What with.
        image: (H, W, 3) uint8 BGR, the picture that times are taken on.
        progress: Told what is being done.

    Raises:
        ModelError, EngineError: A variant does not run, or the first, which the others are
            compared with, finds nothing of what is labelled.
        DatasetError, SourceError: The data cannot be read.
    """
    progress("time")
    speeds = _speeds(variants, task, image)
    rows: List[Row] = []
    for variant, speed in zip(variants, speeds):
        progress(f"accuracy of {variant.title}")
        accuracy = _accuracy(variant, task)
        if not rows:
            _must_find_something(variant, accuracy, task.place)
        progress(f"memory and counts of {variant.title}")
        content = variant.path.read_bytes()
        rows.append(
            Row(
                variant=variant,
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                accuracy=accuracy,
                speed=speed,
                memory_mb=_memory(variant, task, image),
                counted=_count(variant, task),
            )
        )
    return rows


def _open(variant: Variant, task: Task, lowest: float) -> Opened:
    return open_detector(task.place, variant.path, task.recipe, lowest, variant.precision)


def _accuracy(variant: Variant, task: Task) -> Accuracy:
    size = task.place.input_size(task.recipe)
    opened = _open(variant, task, lowest_score(task.recipe))
    try:
        seen = look(opened.detector, task.recipe, size, task.pairs)
    finally:
        opened.close()
    ap = average_precision(seen.truths, seen.found)
    error = expected_error(*labelled_scores(seen.truths, seen.found, OVERLAP))
    return Accuracy(ap["ap30"], ap["ap50"], ap["ap50_95"], error, seen)


def _must_find_something(variant: Variant, accuracy: Accuracy, place: Place) -> None:
    """Compared with nothing, every other variant loses nothing."""
    truths = accuracy.seen.truths
    boxes = sum(int((~t.ignored).sum()) for t in truths)
    if not boxes or accuracy.ap30:
        return
    advice = "check that the labels of --data are of this model's classes"
    if place.backend != "cpu":
        advice = f"try --backend cpu; if it finds none there either, {advice}"
    raise EngineError(
        f"{variant.path.name} ({variant.title}) on {place.backend} finds none of {boxes} "
        f"labelled boxes in {len(truths)} pictures, so there is nothing to compare with: {advice}"
    )


def _count(variant: Variant, task: Task) -> Optional[Counted]:
    if task.clip is None:
        return None
    clip, recipe = task.clip, task.recipe
    opened = _open(variant, task, recipe.low_threshold)
    try:
        report = count.report_of_detector(clip.source, opened.detector, recipe, clip.truth)
    finally:
        opened.close()
    return Counted(report.true, report.missed, report.extra, report.total_error)


def _speeds(variants: Sequence[Variant], task: Task, image: UInt8Array) -> List[Speed]:
    lowest = task.recipe.low_threshold
    opened = [_open(v, task, lowest) for v in variants]
    try:
        calls = [partial(o.detector.detect, [image]) for o in opened]
        times = time_in_turns(calls, turns=task.turns)
    finally:
        for one in opened:
            one.close()
    return [_speed(ms) for ms in times]


def _speed(ms: Milliseconds) -> Speed:
    p50, p99 = (float(v) for v in np.percentile(ms, (50, 99)))
    return Speed(1e3 / p50, p50, p99, fluctuation(ms))


def _memory(variant: Variant, task: Task, image: UInt8Array) -> float:
    """Megabytes that the variant adds to a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        work = pool.apply_async(_grown, (variant, task, image))
        try:
            return work.get(_MEMORY_WAIT_S)
        except multiprocessing.TimeoutError:
            raise EngineError(
                f"{variant.path} did not run within {_MEMORY_WAIT_S:.0f} s in a process of its own"
            ) from None


def _grown(variant: Variant, task: Task, image: UInt8Array) -> float:
    before = psutil.Process().memory_info().rss
    opened = _open(variant, task, task.recipe.low_threshold)
    for _ in range(_MEMORY_CALLS):
        opened.detector.detect([image])
    after = psutil.Process().memory_info().rss
    opened.close()
    return (after - before) / 1e6


def precision_recall(seen: Observed) -> Tuple[Float32Array, Float32Array]:
    """Recall and precision (n,) at overlap 0.5, from the best score down."""
    scores, true = labelled_scores(seen.truths, seen.found, OVERLAP)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    boxes = max(1, sum(int((~t.ignored).sum()) for t in seen.truths))
    ranks = np.arange(1, len(order) + 1)
    return (hits / boxes).astype(np.float32), (hits / ranks).astype(np.float32)


def as_dict(row: Row) -> Dict[str, object]:
    """For the report's JSON."""
    counted = row.counted
    return {
        "key": row.variant.key,
        "title": row.variant.title,
        "how": row.variant.how,
        "file": row.variant.path.name,
        "sha256": row.sha256,
        "bytes": row.bytes,
        "fps": round(row.speed.fps, 2),
        "p50_ms": round(row.speed.p50_ms, 3),
        "p99_ms": round(row.speed.p99_ms, 3),
        "fps_fluctuation": round(row.speed.fluctuation, 4),
        "memory_mb": round(row.memory_mb, 1),
        "ap30": round(row.accuracy.ap30, 4),
        "ap50": round(row.accuracy.ap50, 4),
        "ap50_95": round(row.accuracy.ap50_95, 4),
        "ece": round(row.accuracy.ece, 4),
        "count": None if counted is None else dict(vars(counted)),
    }
