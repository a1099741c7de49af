"""Training beside a finished network: what it sees in each augmented picture is learned, too."""

from typing import Optional, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecount.toolchain.train.dataset import PictureSet
from edgecount.toolchain.train.loss import complete_iou
from edgecount.toolchain.train.model import cells, decode
from edgecount.toolchain.train.recipe import TrainRecipe
from edgecount.toolchain.train.trainer import Trainer


class TaughtTrainer(Trainer):
    """A trainer whose teacher is the output of a finished network.

    Args:
        recipe: What to do.
        model: The network, on its device.
        master: The finished one, with outputs of the same form.
        data: Pictures to learn from.
        held_out: Pictures to validate on.
        labels: Weight of the labels; what nobody labelled is taken for wrong.
        likeness: Weight of giving the master's scores and boxes.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        model: nn.Module,
        master: nn.Module,
        data: PictureSet,
        held_out: Optional[PictureSet] = None,
        *,
        labels: float = 1.0,
        likeness: float = 1.0,
    ) -> None:
        super().__init__(recipe, model, data, held_out)
        self.master = master.eval().requires_grad_(False)
        if self.device.type == "cuda":
            master.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._label_weight = labels
        self._likeness = likeness

    def _teacher_share(self, done: float) -> float:  # noqa: ARG002
        return self._likeness

    def _apart(self, images: Tensor, features: Sequence[Tensor], output: Tensor) -> Tensor:  # noqa: ARG002
        with torch.no_grad():
            wanted = self.master(images).float()
        box_weight = self.recipe.schedule.box_weight
        return output_distance(output.float(), wanted, images.shape[2:], box_weight)


def output_distance(
    output: Tensor, wanted: Tensor, size: Sequence[int], box_weight: float
) -> Tensor:
    """How far a network's output is from another's.

    Cross-entropy of the scores, less its least value, and complete IoU of the boxes, each
    weighted by the other's score: where that sees nothing, boxes may be anything.

    Args:
        output: (B, 4 + C, A) of the one.
        wanted: (B, 4 + C, A) of the other.
        size: Height and width of the pictures.
        box_weight: Weight of the box term.
    """
    centres, strides = cells(size[0], size[1], output.device)
    boxes, logits = decode(output, centres, strides)
    wanted_boxes, wanted_logits = decode(wanted, centres, strides)
    target = wanted_logits.sigmoid()
    total = target.sum().clamp(min=1)
    score = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    least = F.binary_cross_entropy_with_logits(wanted_logits, target, reduction="sum")
    box = ((1 - complete_iou(boxes, wanted_boxes)) * target.amax(-1)).sum()
    return (score - least + box_weight * box) / total
