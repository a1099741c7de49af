"""The pictures in which the precisions disagree most, drawn side by side."""

from dataclasses import dataclass
from typing import List, Sequence

import cv2
import numpy as np

from edgecount.records import BoolArray, Float32Array, UInt8Array
from edgecount.toolchain.evaluate.average_precision import Found, Truth
from edgecount.toolchain.evaluate.detect import Observed, read_picture
from edgecount.toolchain.evaluate.matching import overlaps
from edgecount.toolchain.report.measure import Row

SAME = 0.5  # overlap at which two detections are one head
_WIDTH = 420  # pixels of a panel
_FOUND, _TRUE = (64, 200, 64), (235, 235, 235)  # BGR
_ONLY, _LOST = (0, 140, 255), (90, 60, 240)
_QUALITY = 82
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Disagreement:
    """One picture.

    Attributes:
        name: Name of the file.
        apart: Heads that one precision sees and FP32 does not, or the reverse, in all.
        panels: One JPEG per precision, in the order of the rows.
    """

    name: str
    apart: int
    panels: List[bytes]


def most_apart(rows: Sequence[Row], count: int) -> List[Disagreement]:
    """The pictures with most disagreement to the first row, worst first.

    Args:
        rows: FP32 first.
        count: How many pictures at most; those without disagreement are left out.
    """
    threshold = rows[0].accuracy.seen.recipe.score_threshold
    seen = [row.accuracy.seen for row in rows]
    totals = [
        sum(_apart(seen[0], other, index, threshold) for other in seen[1:])
        for index in range(len(seen[0].pictures))
    ]
    order = sorted(range(len(totals)), key=lambda i: -totals[i])[:count]
    return [
        Disagreement(
            seen[0].pictures[i].name, totals[i], [_panel(rows, r, i) for r in range(len(rows))]
        )
        for i in order
        if totals[i]
    ]


def unmatched(a: Found, b: Found, threshold: float) -> BoolArray:
    """Which sure detections of ``a`` have no partner among the sure ones of ``b``."""
    mine, theirs = a.boxes[a.scores >= threshold], b.boxes[b.scores >= threshold]
    if not len(theirs):
        return np.ones(len(mine), np.bool_)
    alone: BoolArray = overlaps(mine, theirs).max(1) < SAME
    return alone


def _apart(a: Observed, b: Observed, index: int, threshold: float) -> int:
    one, other = a.found[index], b.found[index]
    both = (unmatched(one, other, threshold), unmatched(other, one, threshold))
    return sum(int(u.sum()) for u in both)


def _panel(rows: Sequence[Row], row: int, index: int) -> bytes:
    reference, seen = rows[0].accuracy.seen, rows[row].accuracy.seen
    threshold = seen.recipe.score_threshold
    image = read_picture(seen.pictures[index])
    scale = _WIDTH / image.shape[1]
    image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale), np.uint8)
    _draw_truth(image, seen.truths[index], scale)
    here, there = seen.found[index], reference.found[index]
    sure = here.scores >= threshold
    alone = unmatched(here, there, threshold)
    for box, score, only in zip(here.boxes[sure], here.scores[sure], alone):
        _draw(image, box * scale, _ONLY if only else _FOUND, f"{score:.2f}")
    lost = there.boxes[there.scores >= threshold][unmatched(there, here, threshold)]
    for box in lost:
        _draw(image, box * scale, _LOST, "lost")
    return _jpeg(image)


def _draw_truth(image: UInt8Array, truth: Truth, scale: float) -> None:
    for box in truth.boxes * scale:
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(image, (x1, y1), (x2, y2), _TRUE, 1)


def _draw(image: UInt8Array, box: Float32Array, colour: Sequence[int], text: str) -> None:
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
    cv2.putText(image, text, (x1, max(10, y1 - 3)), _FONT, 0.38, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, (x1, max(10, y1 - 3)), _FONT, 0.38, colour, 1, cv2.LINE_AA)


def _jpeg(image: UInt8Array) -> bytes:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)
