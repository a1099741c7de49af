"""Start from YOLOX-nano (arXiv:2107.08430), read from its ONNX file, and learn from it.

The file's batch norms are folded into its convolutions. A network that goes on learning needs
them back: ``start_from`` measures the teacher's activations on pictures and gives every
convolution a norm that restores their mean and variance, whatever activation the new network has.
"""

from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecount.errors import ModelError
from edgecount.toolchain.onnx_files import read_onnx
from edgecount.toolchain.train.blocks import ConvBnAct, conv3
from edgecount.toolchain.train.model import Detector, cells
from edgecount.toolchain.train.recipe import ModelSpec

WIDTHS = (64, 128, 256)
PERSON = 0  # class of COCO


class _Level(nn.Module):
    """YOLOX's own head at one stride."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.stem = ConvBnAct(cin, 64, 1, act="silu")
        self.cls_tower = nn.Sequential(*(conv3(64, 64, 1, True, "silu") for _ in range(2)))
        self.cls = nn.Conv2d(64, 80, 1)
        self.reg_tower = nn.Sequential(*(conv3(64, 64, 1, True, "silu") for _ in range(2)))
        self.reg = nn.Conv2d(64, 4, 1)
        self.obj = nn.Conv2d(64, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, 5, H * W): raw box, and the person's score in 0..1."""
        x = self.stem(x)
        person = self.cls(self.cls_tower(x))[:, PERSON : PERSON + 1].sigmoid()
        boxes = self.reg_tower(x)
        score = person * self.obj(boxes).sigmoid()
        return torch.cat((self.reg(boxes), score), 1).flatten(2)


class YoloxNano(nn.Module):
    """YOLOX-nano as it was trained (SiLU, COCO), to teach; never updated.

    Raises:
        ModelError: The file is not YOLOX-nano.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        options = {"stem_kernel": 6, "act": "silu"}
        self.trunk = Detector(ModelSpec(backbone_options=options, act="silu"), 1)
        self.levels = nn.ModuleList(_Level(c) for c in WIDTHS)
        layers: List[nn.Module] = list(trunk_layers(self.trunk))
        layers += [m for m in self.levels.modules() if isinstance(m, (ConvBnAct, nn.Conv2d))]
        inner = {id(m.conv) for m in layers if isinstance(m, ConvBnAct)}
        layers = [m for m in layers if id(m) not in inner]
        weights = read_convolutions(path)
        if len(weights) != len(layers):
            raise ModelError(f"{path} has {len(weights)} convolutions, YOLOX-nano {len(layers)}")
        weights[0] = (focus_to_convolution(weights[0][0]), weights[0][1])
        for layer, (weight, bias) in zip(layers, weights):
            _set_folded(layer, weight, bias)
        self.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to the neck's features at strides 8, 16, 32."""
        return self.trunk.features(images)

    def people(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """(N, 3, H, W) to boxes (N, A, 4) in pixels and scores (N, A) of people."""
        maps = [level(f) for level, f in zip(self.levels, self.features(images))]
        raw = torch.cat(maps, 2).transpose(1, 2)
        centres, strides = cells(images.shape[2], images.shape[3], images.device)
        middle = raw[..., :2] * strides[:, None] + centres - strides[:, None] / 2
        half = raw[..., 2:4].exp() * strides[:, None] / 2
        return torch.cat((middle - half, middle + half), -1), raw[..., 4]


def trunk_layers(model: Detector) -> List[ConvBnAct]:
    """Convolutions of backbone and neck in the order in which YOLOX runs them."""
    neck, backbone = model.neck, model.backbone
    parts = [backbone.stem] + [getattr(backbone, f"stage{i}") for i in (2, 3, 4, 5)]
    parts += [neck.reduce5, neck.merge4, neck.reduce4, neck.merge3]
    parts += [neck.down3, neck.out4, neck.down4, neck.out5]
    return [m for part in parts for m in part.modules() if isinstance(m, ConvBnAct)]


def read_convolutions(path: Path) -> List[Tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution of an ONNX file, in the order of the graph.

    Raises:
        MissingExtraError: The package onnx is not installed.
        ModelError: The file cannot be read.
    """
    graph = read_onnx(path, "train").graph
    from onnx import numpy_helper

    values = {i.name: np.array(numpy_helper.to_array(i)) for i in graph.initializer}
    pairs = [n.input[1:3] for n in graph.node if n.op_type == "Conv"]
    return [(torch.from_numpy(values[w]), torch.from_numpy(values[b])) for w, b in pairs]


def focus_to_convolution(weight: Tensor) -> Tensor:
    """YOLOX's focus layer (every second pixel, four times) and its 3×3 convolution as one 6×6."""
    out, _, height, width = weight.shape
    # the four patches are (row, column) = (0, 0), (1, 0), (0, 1), (1, 1)
    parts = weight.view(out, 2, 2, 3, height, width)
    return parts.permute(0, 3, 4, 2, 5, 1).reshape(out, 3, 2 * height, 2 * width)


def fold_border(weight: Tensor) -> Tensor:
    """A 6×6 kernel as 3×3: outer taps are added to the border, so flat areas give the same."""
    rows = torch.stack((weight[:, :, :2].sum(2), weight[:, :, 2], weight[:, :, 3:].sum(2)), 2)
    return torch.stack((rows[..., :2].sum(-1), rows[..., 2], rows[..., 3:].sum(-1)), -1)


def _set_folded(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Give a layer folded weights; a norm becomes the identity plus bias."""
    conv = layer.conv if isinstance(layer, ConvBnAct) else layer
    assert isinstance(conv, nn.Conv2d)
    if conv.weight.shape != weight.shape:
        raise ModelError(
            f"the file's convolution is {tuple(weight.shape)}, YOLOX-nano's is "
            f"{tuple(conv.weight.shape)}: this is another network"
        )
    conv.weight.data.copy_(weight)
    if isinstance(layer, ConvBnAct):
        layer.bn.bias.data.copy_(bias)
        layer.bn.running_var.fill_(1 - layer.bn.eps)
    else:
        conv.bias.data.copy_(bias)


def start_from(teacher: YoloxNano, model: Detector, batches: Sequence[Tensor]) -> None:
    """Copy the teacher's backbone and neck into ``model``, widened where it is wider.

    Args:
        teacher: YOLOX-nano.
        model: A detector with the csp backbone, its widths one whole multiple of the teacher's.
        batches: Pictures (N, 3, H, W) on which activations are measured.

    Raises:
        ModelError: The shapes do not allow it.
    """
    sources, targets = trunk_layers(teacher.trunk), trunk_layers(model)
    times = targets[0].conv.out_channels // sources[0].conv.out_channels
    statistics = measure_outputs(
        [s.conv for s in sources], lambda: [teacher.features(b) for b in batches]
    )
    for source, target in zip(sources, targets):
        weight = widen(_fit_kernel(source.conv.weight, target.conv), times, source is sources[0])
        if weight.shape != target.conv.weight.shape:
            raise ModelError(
                f"YOLOX-nano's {tuple(source.conv.weight.shape)} does not fit "
                f"{tuple(target.conv.weight.shape)}, neither copied nor widened {times} times"
            )
        mean, var = statistics[id(source.conv)]
        target.conv.weight.data.copy_(weight)
        scale = (var + target.bn.eps).sqrt()
        target.bn.weight.data.copy_(scale.repeat_interleave(times))
        target.bn.bias.data.copy_((source.bn.bias + mean).repeat_interleave(times))
    _settle(model, batches)


def widen(weight: Tensor, times: int, first: bool) -> Tensor:
    """Repeat channels so that the function stays (Net2Net, arXiv:1511.05641), shares unequal.

    Args:
        weight: (out, in, h, w) of the narrow convolution; in is 1 where it is depthwise.
        times: How often each channel is repeated.
        first: The input is the picture, which is not widened.
    """
    if times == 1:
        return weight
    wide = weight.repeat_interleave(times, 0)
    if first or weight.shape[1] == 1:
        return wide * (1 + 0.05 * torch.randn_like(wide))
    share = 1 / times + 0.15 * torch.randn(*wide.shape[:2], times, 1, 1, device=weight.device)
    share = share - share.mean(2, keepdim=True) + 1 / times
    return (wide[:, :, None] * share).flatten(1, 2)


def _fit_kernel(weight: Tensor, conv: nn.Conv2d) -> Tensor:
    return fold_border(weight) if weight.shape[-1] == 6 and conv.kernel_size[0] == 3 else weight


def measure_outputs(
    layers: Sequence[nn.Conv2d], run: Callable[[], object]
) -> Dict[int, Tuple[Tensor, Tensor]]:
    """Mean and variance of each convolution's output while ``run`` runs, by the layer's id."""
    sums: Dict[int, List[Tensor]] = {id(layer): [] for layer in layers}

    def hook_for(layer: nn.Conv2d) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, out: Tensor) -> None:
            flat = out.float().transpose(0, 1).flatten(1)
            sums[id(layer)].append(torch.stack((flat.mean(1), flat.square().mean(1))))

        return hook

    handles = [layer.register_forward_hook(hook_for(layer)) for layer in layers]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    found = {}
    for key, parts in sums.items():
        mean, square = torch.stack(parts).mean(0)
        found[key] = (mean, (square - mean.square()).clamp(min=1e-8))
    return found


def _settle(model: Detector, batches: Sequence[Tensor]) -> None:
    """Let the running statistics of all norms become those of the pictures."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum_was, norm.momentum = norm.momentum, None
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for norm in norms:
        norm.momentum = norm.momentum_was
        del norm.momentum_was


class FeatureTeacher(nn.Module):
    """Keeps a network's features near the teacher's: squared distance after a 1×1 convolution.

    The pictures at hand show one kind of scene; the teacher has seen many. Distances are in units
    of each channel's deviation in the batch.
    """

    def __init__(self, teacher: YoloxNano, widths: Sequence[int]) -> None:
        super().__init__()
        self.teacher = teacher
        self.adapters = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, WIDTHS))
        for adapter, a, b in zip(self.adapters, widths, WIDTHS):
            if a % b == 0:
                eye = torch.eye(b).repeat_interleave(a // b, 1) * (b / a)
                adapter.weight.data.copy_(eye[:, :, None, None])
                nn.init.zeros_(adapter.bias)

    def forward(self, images: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Mean squared distance, over the levels."""
        half = max(1, len(images) // 2)  # half of the batch is guidance enough
        with torch.no_grad():
            wanted = self.teacher.features(images[:half])
        parts = []
        for adapter, mine, want in zip(self.adapters, features, wanted):
            want = want.float()
            spread = want.std((0, 2, 3), keepdim=True).clamp(min=1e-3)
            parts.append(F.mse_loss(adapter(mine[:half]).float() / spread, want / spread))
        return torch.stack(parts).mean()
