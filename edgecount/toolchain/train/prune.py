"""Structured pruning: whole channels go, chosen by their share of the norms (torch-pruning).

The pruned network has another shape than its recipe says, so its checkpoint holds the network
itself, and fine-tuning starts from it.
"""

import copy
from dataclasses import dataclass
from typing import Any, List

import torch
from torch import nn

from edgecount.errors import MissingExtraError
from edgecount.toolchain.train.model import Detector, count_macs


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
        ratio: Part of the channels of each group, 0..1.
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
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        torch.zeros(1, 3, side, side),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=outputs,
        round_to=8,
    )
    pruner.step()
    return copy.deepcopy(model)
