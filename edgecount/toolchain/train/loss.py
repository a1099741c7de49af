"""The loss: cross-entropy of the scores against quality targets, and complete IoU of the boxes."""

import math
from typing import Dict, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from edgecount.toolchain.train.assign import assign
from edgecount.toolchain.train.model import decode


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """CIoU (arXiv:1911.08287) of box pairs (…, 4): IoU less distance and difference of shape."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    # products are written out: the gradient of prod() waits for the device to look for zeros
    width, height = (high - low).clamp(min=0).unbind(-1)
    common = width * height
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    total = size_a[..., 0] * size_a[..., 1] + size_b[..., 0] * size_b[..., 1]
    iou = common / (total - common).clamp(min=1e-6)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(-1) / 4
    angle = torch.atan(size_a[..., 0] / size_a[..., 1].clamp(min=1e-3))
    angle = angle - torch.atan(size_b[..., 0] / size_b[..., 1].clamp(min=1e-3))
    shape = (4 / math.pi**2) * angle.square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape).clamp(min=1e-6)
    return iou - apart / hull.square().sum(-1).clamp(min=1e-6) - weight * shape


def detection_loss(
    output: Tensor,
    boxes: Tensor,
    classes: Tensor,
    centres: Tensor,
    strides: Tensor,
    box_weight: float,
    forgiven: Optional[Tensor] = None,
) -> Tuple[Tensor, Dict[str, Tensor]]:
    """Loss of a batch.

    Args:
        output: (B, 4 + C, A) of the network.
        boxes: (B, G, 4) true boxes in pixels.
        classes: (B, G) int64, a class, ``IGNORE`` or ``EMPTY``.
        centres: (A, 2) centres of the cells.
        strides: (A,) strides of the cells.
        box_weight: Weight of the box term.
        forgiven: (B, A) bool, cells that are not learned as background, though no box is there.

    Returns:
        The loss to minimise, and its parts, detached.
    """
    predicted, logits = decode(output, centres, strides)
    with torch.no_grad():
        found = assign(predicted, logits.sigmoid(), boxes, classes, centres, strides)
        target_box = boxes.gather(1, found.box[..., None].expand(-1, -1, 4))
        kind = classes.gather(1, found.box).clamp(min=0)
        target = F.one_hot(kind, logits.shape[2]) if logits.shape[2] > 1 else 1
        target = found.quality[..., None] * target
        total = found.quality.sum().clamp(min=1)
        counted = found.counted
        if forgiven is not None:
            counted = counted * (found.positive | ~forgiven)
    score = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    score_loss = (score * counted[..., None]).sum() / total
    overlap = complete_iou(predicted, target_box)
    box_loss = ((1 - overlap) * found.quality).sum() / total
    loss = score_loss + box_weight * box_loss
    return loss, {"score": score_loss.detach(), "box": box_loss.detach()}
