"""Learning beside a finished detector: what it sees in each augmented picture is learned, too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecount.toolchain.onnx_files import read_onnx
from edgecount.toolchain.train.loss import complete_iou
from edgecount.toolchain.train.model import cells, decode
from edgecount.toolchain.train.onnx_network import OnnxNetwork


@dataclass(frozen=True)
class Master:
    """A finished network that a training learns from.

    Attributes:
        network: Gives (B, 4 + C, A) for pictures (B, 3, H, W), as the trained one does.
        likeness: Weight of giving its scores and boxes.
        labels: Weight of the labels beside it.
        forgive_above: Where its score is at least this and no label asks for a head, the labels'
            loss says nothing: such a head may only lack its label. None: labels are believed.
    """

    network: nn.Module
    likeness: float = 1.0
    labels: float = 1.0
    forgive_above: Optional[float] = None

    def forgives(self, wanted: Tensor, certain: Tensor) -> Optional[Tensor]:
        """(B, A) bool, cells whose score is not to be learned as background.

        Args:
            wanted: (B, 4 + C, A), what the network gives.
            certain: (B, A) bool, cells in which nothing can be a head.
        """
        if self.forgive_above is None:
            return None
        return (wanted[:, 4:].amax(1).sigmoid() >= self.forgive_above) & ~certain


def load_master(path: Path, device: torch.device, half: bool) -> nn.Module:
    """A detector's ONNX file as a network that is never updated.

    Args:
        path: The file.
        device: Where it runs.
        half: On a GPU, keep its weights in bfloat16: it then runs under autocast alone.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: The file cannot be read or run.
    """
    model = read_onnx(path, "train")
    network = OnnxNetwork(model, model, learn_scales=False).to(device)
    network.eval().requires_grad_(False)
    return network.bfloat16() if half and device.type == "cuda" else network


def output_distance(
    output: Tensor,
    wanted: Tensor,
    size: Sequence[int],
    box_weight: float,
    counted: Optional[Tensor] = None,
) -> Tensor:
    """How far a network's output is from another's.

    Cross-entropy of the scores, less its least value, and complete IoU of the boxes, each
    weighted by the other's score: where that sees nothing, boxes may be anything.

    Args:
        output: (B, 4 + C, A) of the one.
        wanted: (B, 4 + C, A) of the other.
        size: Height and width of the pictures.
        box_weight: Weight of the box term.
        counted: (B, A) weight of each cell; 1 where None.
    """
    centres, strides = cells(size[0], size[1], output.device)
    boxes, logits = decode(output, centres, strides)
    wanted_boxes, wanted_logits = decode(wanted, centres, strides)
    target = wanted_logits.sigmoid()
    weight = torch.ones_like(target[..., 0]) if counted is None else counted
    total = (target.sum(-1) * weight).sum().clamp(min=1)
    score = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    least = F.binary_cross_entropy_with_logits(wanted_logits, target, reduction="none")
    score_distance = ((score - least).sum(-1) * weight).sum()
    box = ((1 - complete_iou(boxes, wanted_boxes)) * target.amax(-1) * weight).sum()
    return (score_distance + box_weight * box) / total


def inside_any(rects: Tensor, centres: Tensor) -> Tensor:
    """(B, A) bool: which points (A, 2) lie in any of the rectangles (B, P, 4)."""
    x, y = centres[:, 0], centres[:, 1]
    x1, y1, x2, y2 = (side[..., None] for side in rects.unbind(-1))
    return ((x > x1) & (x < x2) & (y > y1) & (y < y2)).any(1)
