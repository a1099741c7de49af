"""From an exported ONNX file back to a network that can go on learning.

An export has its batch norms folded into its convolutions. Here each convolution gets a norm
again: one that restores the mean and variance of its outputs on pictures, so that the network
computes what the file computes and its norms can go on from there.
"""

from pathlib import Path
from typing import Dict, Iterator, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from edgecount.errors import ModelError
from edgecount.toolchain.onnx_files import read_onnx
from edgecount.toolchain.train.model import Detector
from edgecount.toolchain.train.yolox import measure_outputs


def unfold(path: Path, model: Detector, batches: Sequence[Tensor]) -> None:
    """Give a network the weights of an ONNX file that was exported from one of its kind.

    Args:
        path: The file.
        model: The network, in place.
        batches: Pictures (N, 3, H, W) on which the norms' statistics are measured.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: The file cannot be read, or holds another network.
    """
    values = read_weights(path)
    pairs = list(convolutions(model))
    for name, conv, norm in pairs:
        weight, bias = values.get(f"{name}.weight"), values.get(f"{name}.bias")
        if weight is None or bias is None or weight.shape != conv.weight.shape:
            raise ModelError(f"{path} holds another network: {name} is not in it, or differs")
        conv.weight.data.copy_(weight)
        if norm is None:
            conv.bias.data.copy_(bias)
        else:
            _make_identity(norm, bias)
    model.eval()
    statistics = measure_outputs([c for _, c, n in pairs if n], lambda: [model(b) for b in batches])
    for _, conv, norm in pairs:
        if norm is not None:
            mean, var = statistics[id(conv)]
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
            norm.weight.data.copy_((var + norm.eps).sqrt())
            norm.bias.data.add_(mean)


def _make_identity(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    """Let a norm, while it is not training, add a bias and nothing else."""
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.data.fill_(1)
    norm.bias.data.copy_(bias)


def convolutions(
    model: nn.Module,
) -> Iterator[Tuple[str, nn.Conv2d, Optional[nn.BatchNorm2d]]]:
    """Name of each convolution, the convolution, and the norm that directly follows it."""
    for name, parent in model.named_modules():
        children = list(parent.named_children())
        followers = [child for _, child in children[1:]]
        for (own, conv), after in zip(children, [*followers, None]):
            if isinstance(conv, nn.Conv2d):
                norm = after if isinstance(after, nn.BatchNorm2d) else None
                yield f"{name}.{own}" if name else own, conv, norm


def read_weights(path: Path) -> Dict[str, Tensor]:
    """Weight and bias of each convolution of an ONNX file, by the name that the module gives them.

    The weight's name says which module it is; equal biases may be stored once, under one name.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: The file cannot be read.
    """
    graph = read_onnx(path, "train").graph
    from onnx import numpy_helper

    values = {i.name: np.array(numpy_helper.to_array(i)) for i in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and set(node.input[1:]) <= set(values):
            name = node.input[1]
            found[name] = torch.from_numpy(values[name])
            found[name.replace(".weight", ".bias")] = torch.from_numpy(values[node.input[2]])
    return found
