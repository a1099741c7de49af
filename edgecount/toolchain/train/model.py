"""The detector: backbone, feature pyramid and decoupled head, one graph for every size.

Parameter names begin with ``backbone.``, ``neck.`` or ``head.``; precision rules match on them.
"""

import math
from typing import List, Mapping, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecount import discovery
from edgecount.toolchain.train.blocks import ConvBnAct, CspLayer, conv3
from edgecount.toolchain.train.recipe import ModelSpec

STRIDES = (8, 16, 32)
PRIOR = 0.01  # score of every cell before training, so that the first steps are not all negatives


class Pafpn(nn.Module):
    """Path-aggregation pyramid of YOLOX (arXiv:1803.01534, arXiv:2107.08430), any input width."""

    def __init__(
        self, cin: Sequence[int], width: Sequence[int], n: int, depthwise: bool, act: str
    ) -> None:
        super().__init__()
        c3, c4, c5 = width
        for level, a, b in zip(("3", "4", "5"), cin, width):
            lateral = nn.Identity() if a == b else ConvBnAct(a, b, 1, act=act)
            self.add_module(f"lateral{level}", lateral)
        self.reduce5 = ConvBnAct(c5, c4, 1, act=act)
        self.merge4 = CspLayer(2 * c4, c4, n, False, depthwise, act)
        self.reduce4 = ConvBnAct(c4, c3, 1, act=act)
        self.merge3 = CspLayer(2 * c3, c3, n, False, depthwise, act)
        self.down3 = conv3(c3, c3, 2, depthwise, act)
        self.out4 = CspLayer(2 * c3, c4, n, False, depthwise, act)
        self.down4 = conv3(c4, c4, 2, depthwise, act)
        self.out5 = CspLayer(2 * c4, c5, n, False, depthwise, act)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, features: Sequence[Tensor]) -> Tuple[Tensor, Tensor, Tensor]:
        """Features at strides 8, 16, 32 to merged features at the same strides."""
        c3 = self.lateral3(features[0])
        c4 = self.lateral4(features[1])
        p5 = self.reduce5(self.lateral5(features[2]))
        p4 = self.reduce4(self.merge4(torch.cat((self.up(p5), c4), 1)))
        n3 = self.merge3(torch.cat((self.up(p4), c3), 1))
        n4 = self.out4(torch.cat((self.down3(n3), p4), 1))
        n5 = self.out5(torch.cat((self.down4(n4), p5), 1))
        return n3, n4, n5


class Branch(nn.Module):
    """The head of one level: a common 1×1, then a tower for boxes and one for scores."""

    def __init__(self, cin: int, width: int, classes: int, n: int, dw: bool, act: str) -> None:
        super().__init__()
        self.stem = ConvBnAct(cin, width, 1, act=act)
        self.box_tower = nn.Sequential(*(conv3(width, width, 1, dw, act) for _ in range(n)))
        self.score_tower = nn.Sequential(*(conv3(width, width, 1, dw, act) for _ in range(n)))
        self.box = nn.Conv2d(width, 4, 1)
        self.score = nn.Conv2d(width, classes, 1)
        nn.init.constant_(self.box.bias, 2.0)
        nn.init.constant_(self.score.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, 4 + classes, H * W)."""
        x = self.stem(x)
        box = F.softplus(self.box(self.box_tower(x)).float())
        score = self.score(self.score_tower(x)).float()
        return torch.cat((box, score), 1).flatten(2)


class Head(nn.Module):
    """One branch per level; their cells side by side."""

    def __init__(self, cin: Sequence[int], classes: int, spec: ModelSpec) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            Branch(c, spec.head_width, classes, spec.head_depth, spec.head_depthwise, spec.act)
            for c in cin
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features by rising stride to (N, 4 + classes, cells)."""
        return torch.cat([level(f) for level, f in zip(self.levels, features)], 2)


class Detector(nn.Module):
    """Pictures to distances and score logits, for every cell of every level.

    Input (N, 3, H, W): BGR, 0..255, H and W multiples of 32. Output (N, 4 + classes, A) float32:
    left, top, right, bottom distances from the cell's centre in units of the level's stride
    (non-negative), then one score logit per class. Cells follow by rising stride, row by row.
    """

    def __init__(self, spec: ModelSpec, classes: int) -> None:
        super().__init__()
        module = discovery.load(
            "edgecount.toolchain.train.backbones", spec.backbone, "the backbone"
        )
        self.backbone = module.create(module.Options(**spec.backbone_options))
        self.neck = Pafpn(
            self.backbone.channels, spec.neck_width, spec.neck_depth, spec.neck_depthwise, spec.act
        )
        self.head = Head(spec.neck_width, classes, spec)

    def features(self, images: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """The merged features at strides 8, 16, 32."""
        return self.neck(self.backbone(images))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 4 + classes, A)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


def cells(height: int, width: int, device: torch.device) -> Tuple[Tensor, Tensor]:
    """Centres (A, 2) in pixels and strides (A,) of all cells, in the order of the output."""
    centres: List[Tensor] = []
    strides: List[Tensor] = []
    for stride in STRIDES:
        ys = (torch.arange(height // stride, device=device) + 0.5) * stride
        xs = (torch.arange(width // stride, device=device) + 0.5) * stride
        gy, gx = torch.meshgrid(ys, xs, indexing="ij")
        centres.append(torch.stack((gx.flatten(), gy.flatten()), 1))
        strides.append(torch.full((gx.numel(),), float(stride), device=device))
    return torch.cat(centres), torch.cat(strides)


def decode(output: Tensor, centres: Tensor, strides: Tensor) -> Tuple[Tensor, Tensor]:
    """Boxes (N, A, 4) as x1, y1, x2, y2 in pixels, and logits (N, A, classes)."""
    ltrb = output[:, :4].transpose(1, 2) * strides[None, :, None]
    boxes = torch.cat((centres - ltrb[..., :2], centres + ltrb[..., 2:]), -1)
    return boxes, output[:, 4:].transpose(1, 2)


def fit_shapes(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give convolutions and norms the channel counts of a state dict (of a pruned network)."""
    for name, module in model.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or weight.shape == module.weight.shape:
            continue
        here = {"dtype": module.weight.dtype, "device": module.weight.device}
        module.weight = nn.Parameter(torch.empty_like(weight, **here))
        if isinstance(module, nn.BatchNorm2d):
            module.num_features = len(weight)
            module.running_mean = module.running_mean.new_zeros(len(weight))
            module.running_var = module.running_var.new_ones(len(weight))
        elif isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.in_channels > 1
            module.out_channels = len(weight)
            module.groups = len(weight) if depthwise else module.groups
            module.in_channels = len(weight) if depthwise else weight.shape[1]
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias.new_zeros(len(weight)))


def count_macs(model: nn.Module, size: int) -> int:
    """Multiply-accumulate operations of all convolutions for one square picture."""
    total = 0

    def hook(conv: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        total += out[0].numel() * conv.weight[0].numel()

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.Conv2d)]
    training, device = model.training, next(model.parameters()).device
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size, device=device))
    for handle in handles:
        handle.remove()
    model.train(training)
    return total
