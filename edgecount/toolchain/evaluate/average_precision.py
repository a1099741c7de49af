"""Average precision as COCO computes it (pycocotools), also at the loose overlap of 0.3."""

import contextlib
import io
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

import numpy as np
import numpy.typing as npt

from edgecount.errors import MissingExtraError

OVERLAPS = (0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
MOST = 300  # detections per picture


@dataclass(frozen=True)
class Truth:
    """What is in one picture: boxes (n, 4) x1, y1, x2, y2; classes (n,); ignored (n,) bool."""

    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """What was found in one picture: boxes (n, 4) x1, y1, x2, y2; scores (n,); classes (n,)."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


def average_precision(truths: Sequence[Truth], found: Sequence[Found]) -> Dict[str, float]:
    """AP over all pictures, mean over the classes that occur.

    Args:
        truths: One per picture.
        found: Detections of the same pictures, in the same order.

    Returns:
        ``ap30``, ``ap50``, ``ap50_95`` and ``recall50`` (largest recall at overlap 0.5), 0..1;
        0 where there is no box at all.

    Raises:
        MissingExtraError: pycocotools is not installed.
    """
    evaluation = _evaluate(truths, found)
    precision = evaluation["precision"][:, :, :, 0, 0]  # overlap, recall, class
    recall = evaluation["recall"][:, :, 0, 0]
    per_overlap = [_mean(precision[i]) for i in range(len(OVERLAPS))]
    return {
        "ap30": per_overlap[0],
        "ap50": per_overlap[1],
        "ap50_95": float(np.mean(per_overlap[1:])),
        "recall50": _mean(recall[1]),
    }


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else 0.0


def _evaluate(truths: Sequence[Truth], found: Sequence[Found]) -> Dict[str, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtraError("pycocotools", "eval") from error
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "categories": [{"id": int(c)} for c in _classes(truths)],
            "annotations": _annotations(truths),
        }
        coco.createIndex()
        results = COCO()
        results.dataset = dict(coco.dataset, annotations=_results(found))
        results.createIndex()
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.iouThrs = np.array(OVERLAPS)
        evaluation.params.maxDets = [MOST]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval  # type: ignore[no-any-return]


def _classes(truths: Sequence[Truth]) -> List[int]:
    return sorted({int(c) for t in truths for c in t.classes} or {0})


def _corner_size(box: npt.NDArray[np.float32]) -> List[float]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _annotations(truths: Sequence[Truth]) -> List[Dict[str, Any]]:
    rows: List[Dict[str, Any]] = []
    for image, truth in enumerate(truths):
        for box, kind, ignored in zip(truth.boxes, truth.classes, truth.ignored):
            bbox = _corner_size(box)
            row = {"id": len(rows) + 1, "image_id": image, "category_id": int(kind), "bbox": bbox}
            rows.append(dict(row, area=bbox[2] * bbox[3], iscrowd=int(ignored)))
    return rows


def _results(found: Sequence[Found]) -> List[Dict[str, Any]]:
    rows: List[Dict[str, Any]] = []
    for image, one in enumerate(found):
        for box, score, kind in zip(one.boxes, one.scores, one.classes):
            bbox = _corner_size(box)
            row = {"id": len(rows) + 1, "image_id": image, "category_id": int(kind), "bbox": bbox}
            rows.append(dict(row, area=bbox[2] * bbox[3], score=float(score), iscrowd=0))
    return rows
