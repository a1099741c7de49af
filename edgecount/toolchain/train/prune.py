"""Structured pruning: whole channels go, chosen by their share of the norms (torch-pruning).

The pruned network has another shape than its recipe says, so its checkpoint holds the network
itself, and fine-tuning starts from it.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any, List

import torch
from torch import nn

from edgecount.errors import MissingExtraError
from edgecount.toolchain.train.model import Detector, count_macs

MULTIPLE = 8  # of channels: what integer kernels run fastest


@dataclass(frozen=True)
class Size:
    """Parameters, and multiply-accumulate operations at the recipe's input size."""

    parameters: int
    macs: int


def size_of(model: nn.Module, side: int) -> Size:
    """Size of a network for a square input of ``side`` pixels."""
    return Size(sum(p.numel() for p in model.parameters()), count_macs(model, side))


def prune(model: Detector, ratio: float, side: int) -> Detector:
    """A copy of the model, on the CPU, without ``ratio`` of its channels.

    Channels that belong together (across additions and concatenations) go together; those with
    the smallest L2 norm over their group go first (DepGraph, arXiv:2301.12900). What the head
    gives out stays.

    Args:
        model: A trained detector; batch norms must not be folded.
        ratio: Part of the channels of each group, 0..1; what is kept is rounded up to a multiple
            of ``MULTIPLE``, so that narrow layers, which hold the least to spare, lose none.
        side: Size of the example input.

    Returns:
        The smaller network. It shares no parameter with what the pruning library traced, which
        matters when its training step is captured in a CUDA graph.

    Raises:
        MissingExtraError: torch-pruning is not installed.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtraError("torch-pruning", "train") from error
    model = copy.deepcopy(model).cpu().requires_grad_(True)
    outputs: List[Any] = [m for level in model.head.levels for m in (level.box, level.score)]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    ratios = {m: exact_ratio(m.out_channels, ratio) for m in convolutions if m not in outputs}
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        torch.zeros(1, 3, side, side),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio_dict=ratios,
        ignored_layers=outputs,
    )
    pruner.step()
    return copy.deepcopy(model)


def exact_ratio(channels: int, ratio: float) -> float:
    """The ratio that leaves a layer the next multiple of ``MULTIPLE`` above what is to be kept.

    The pruning library rounds down itself: of 16 channels, 11 to be kept, it would leave 8.
    """
    kept = min(channels, MULTIPLE * math.ceil((1 - ratio) * channels / MULTIPLE - 1e-9))
    return 1 - (kept + 0.5) / channels  # the half: int(channels * (1 - ratio)) must not fall short
