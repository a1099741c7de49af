"""Which cells learn which box: task-aligned assignment (TOOD, arXiv:2108.07755, section 3.2).

Fixed shapes throughout: G box slots per picture, unused ones marked, so that it can run inside a
CUDA graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgecount.toolchain.train.dataset import IGNORE

TOP = 10  # cells per box
ALPHA, BETA = 0.5, 4.0  # weight of score and of overlap
REACH = 0.75  # a cell may serve a box whose centre is this near, in strides (boxes below a cell)


@dataclass(frozen=True)
class Assignment:
    """Per cell (B, A): what it should say.

    Attributes:
        box: int64, index of the box that the cell learns; any value where not positive.
        positive: bool.
        quality: float, target of the score in 0..1; 0 where not positive.
        counted: float, 0 where the score is not learned (ignored regions), else 1.
    """

    box: Tensor
    positive: Tensor
    quality: Tensor
    counted: Tensor


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box in (B, G, 4) with every box in (B, A, 4), (B, G, A)."""
    width = torch.minimum(a[:, :, None, 2], b[:, None, :, 2])
    width = (width - torch.maximum(a[:, :, None, 0], b[:, None, :, 0])).clamp(min=0)
    height = torch.minimum(a[:, :, None, 3], b[:, None, :, 3])
    height = (height - torch.maximum(a[:, :, None, 1], b[:, None, :, 1])).clamp(min=0)
    common = width * height
    size_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    size_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    return common / (size_a[:, :, None] + size_b[:, None] - common).clamp(min=1e-6)


def near_cells(boxes: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """(B, G, A) bool: the cell's centre lies in the box, or within ``REACH`` of its centre."""
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]) / 2
    dx = (middle[..., 0, None] - centres[:, 0]).abs()
    dy = (middle[..., 1, None] - centres[:, 1]).abs()
    reach = REACH * strides
    return (dx < torch.maximum(half[..., 0, None], reach)) & (
        dy < torch.maximum(half[..., 1, None], reach)
    )


def assign(
    predicted: Tensor,
    scores: Tensor,
    boxes: Tensor,
    classes: Tensor,
    centres: Tensor,
    strides: Tensor,
) -> Assignment:
    """Assign boxes to cells.

    Args:
        predicted: (B, A, 4) boxes that the network predicts, in pixels.
        scores: (B, A, C) its scores in 0..1.
        boxes: (B, G, 4) true boxes.
        classes: (B, G) int64, a class, ``IGNORE`` or ``EMPTY``.
        centres: (A, 2) centres of the cells.
        strides: (A,) strides of the cells.
    """
    near = near_cells(boxes, centres, strides)
    real = (classes >= 0)[..., None]
    iou = pairwise_iou(boxes, predicted)
    index = classes.clamp(min=0)[..., None].expand(-1, -1, scores.shape[1])
    score = (
        scores.transpose(1, 2).gather(1, index) if scores.shape[2] > 1 else scores.transpose(1, 2)
    )
    metric = score.pow(ALPHA) * iou.pow(BETA) * (near & real)
    best = metric.topk(min(TOP, metric.shape[-1]), dim=-1)
    chosen = torch.zeros_like(metric).scatter_(-1, best.indices, (best.values > 1e-9).float())
    metric = metric * chosen
    strongest = (iou * chosen).amax(-1, keepdim=True)
    quality = metric / metric.amax(-1, keepdim=True).clamp(min=1e-9) * strongest
    owner = (iou * chosen).argmax(1)
    positive = chosen.amax(1) > 0
    quality = quality.gather(1, owner[:, None])[:, 0] * positive
    ignored = ((near & (classes == IGNORE)[..., None]).any(1)) & ~positive
    return Assignment(owner, positive, quality, 1 - ignored.float())
