"""Detections of a network in training, and their average precision."""

from dataclasses import dataclass
from typing import Dict, Iterator, List, Tuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecount.toolchain.evaluate.average_precision import Found, Truth, average_precision
from edgecount.toolchain.train.dataset import IGNORE, PictureSet
from edgecount.toolchain.train.model import cells, decode

LOWEST = 0.01  # scores below are not worth ranking
MOST = 300


@dataclass(frozen=True)
class Candidates:
    """Boxes of one picture before NMS: (n, 4), (n,) scores and (n,) classes."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


def suppress(found: Candidates, iou: float) -> Candidates:
    """Non-maximum suppression, class by class, best first, at most 300."""
    spread = found.classes[:, None] * 1e5
    moved = found.boxes + spread
    corner_size = np.concatenate((moved[:, :2], moved[:, 2:] - moved[:, :2]), 1)
    keep = np.array(
        cv2.dnn.NMSBoxes(corner_size.tolist(), found.scores.tolist(), 0.0, iou), np.int64
    ).reshape(-1)[:MOST]
    return Candidates(found.boxes[keep], found.scores[keep], found.classes[keep])


def candidates(boxes: Tensor, scores: Tensor, lowest: float) -> List[Candidates]:
    """Cells (B, A, 4) and scores (B, A, C) whose best class scores at least ``lowest``."""
    best, kind = scores.max(-1)
    found = []
    for b, s, k in zip(boxes, best, kind):
        keep = s >= lowest
        found.append(
            Candidates(
                b[keep].float().cpu().numpy(), s[keep].float().cpu().numpy(), k[keep].cpu().numpy()
            )
        )
    return found


def batches(data: PictureSet, size: int, batch: int) -> Iterator[Tuple[int, Tensor]]:
    """First index and pictures (n, 3, size, size), resized where the cache has another size."""
    for start in range(0, len(data), batch):
        index = torch.arange(start, min(start + batch, len(data)), device=data.atlas.device)
        images = data.pictures(index)
        if size != data.size:
            images = F.interpolate(
                images, size=(size, size), mode="bilinear", antialias=size < data.size
            )
        yield start, images


def predict(model: nn.Module, images: Tensor, half: bool = True) -> Tuple[Tensor, Tensor]:
    """Boxes (B, A, 4) in pixels and scores (B, A, C); ``half``: in bfloat16 on a GPU."""
    fast = half and images.is_cuda
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, fast):
        output = model(images)
    centres, strides = cells(images.shape[2], images.shape[3], images.device)
    boxes, logits = decode(output.float(), centres, strides)
    return boxes, logits.sigmoid()


def validate(
    model: nn.Module, data: PictureSet, size: int, batch: int = 64, half: bool = True
) -> Dict[str, float]:
    """AP of a network on a set.

    Args:
        model: In evaluation mode.
        data: Pictures with boxes.
        size: Input size.
        batch: Pictures at a time.
        half: On a GPU, run the network in bfloat16.
    """
    found, truths = [], []
    scale = data.size / size
    for start, images in batches(data, size, batch):
        boxes, scores = predict(model, images, half)
        for i, raw in enumerate(candidates(boxes * scale, scores, LOWEST)):
            kept = suppress(raw, 0.6)
            found.append(Found(kept.boxes, kept.scores, kept.classes))
            real = data.classes[start + i]
            used = (real >= 0) | (real == IGNORE)
            truths.append(
                Truth(
                    data.boxes[start + i][used].cpu().numpy(),
                    real[used].clamp(min=0).cpu().numpy(),
                    (real[used] == IGNORE).cpu().numpy(),
                )
            )
    return average_precision(truths, found)
