"""Convolution blocks that the backbones, the neck and the head are made of."""

from typing import List

import torch
from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "hardswish": nn.Hardswish}


class ConvBnAct(nn.Module):
    """Convolution, batch norm and activation; the norm folds into the convolution on export.

    Args:
        cin: Input channels.
        cout: Output channels.
        kernel: Odd kernel size; padding keeps the size at stride 1.
        stride: 1 or 2.
        groups: ``cin`` for a depthwise convolution.
        act: A key of ``ACTIVATIONS``.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: str = "relu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03)
        self.act = ACTIVATIONS[act](inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H / stride, W / stride)."""
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


def conv3(
    cin: int, cout: int, stride: int = 1, depthwise: bool = False, act: str = "relu"
) -> nn.Module:
    """A 3×3 convolution: dense, or depthwise followed by 1×1 (MobileNet, arXiv:1704.04861)."""
    if not depthwise:
        return ConvBnAct(cin, cout, 3, stride, act=act)
    return nn.Sequential(
        ConvBnAct(cin, cin, 3, stride, groups=cin, act=act), ConvBnAct(cin, cout, 1, act=act)
    )


class Bottleneck(nn.Module):
    """1×1 then 3×3 convolution, with a residual connection where asked for."""

    def __init__(self, channels: int, shortcut: bool, depthwise: bool, act: str) -> None:
        super().__init__()
        self.conv1 = ConvBnAct(channels, channels, 1, act=act)
        self.conv2 = conv3(channels, channels, depthwise=depthwise, act=act)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (N, channels, H, W)."""
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CspLayer(nn.Module):
    """Cross-stage-partial layer: half the channels pass ``n`` bottlenecks (arXiv:1911.11929)."""

    def __init__(
        self, cin: int, cout: int, n: int, shortcut: bool, depthwise: bool, act: str
    ) -> None:
        super().__init__()
        half = cout // 2
        self.conv1 = ConvBnAct(cin, half, 1, act=act)
        self.conv2 = ConvBnAct(cin, half, 1, act=act)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut, depthwise, act) for _ in range(n)))
        self.conv3 = ConvBnAct(2 * half, cout, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H, W)."""
        return self.conv3(  # type: ignore[no-any-return]
            torch.cat((self.m(self.conv1(x)), self.conv2(x)), dim=1)
        )


class SpatialPyramidPooling(nn.Module):
    """Max pools of 5, 9 and 13 side by side (arXiv:1406.4729), each made from the one before."""

    def __init__(self, cin: int, cout: int, act: str) -> None:
        super().__init__()
        half = cin // 2
        self.conv1 = ConvBnAct(cin, half, 1, act=act)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.conv2 = ConvBnAct(half * 4, cout, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H, W)."""
        pooled: List[Tensor] = [self.conv1(x)]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        return self.conv2(torch.cat(pooled, dim=1))  # type: ignore[no-any-return]


def conv_bn(cin: int, cout: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm without activation."""
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03),
    )


class SqueezeExcite(nn.Module):
    """Scales channels by what the whole picture holds (arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (N, channels, H, W)."""
        scale = torch.relu(self.reduce(self.pool(x)))
        return x * nn.functional.hardsigmoid(self.expand(scale))


class InvertedResidual(nn.Module):
    """1×1 widening, depthwise convolution, 1×1 narrowing (MobileNetV2, arXiv:1801.04381)."""

    def __init__(
        self, cin: int, hidden: int, cout: int, kernel: int, stride: int, squeeze: bool, act: str
    ) -> None:
        super().__init__()
        widen = nn.Identity() if hidden == cin else ConvBnAct(cin, hidden, 1, act=act)
        self.body = nn.Sequential(
            widen,
            ConvBnAct(hidden, hidden, kernel, stride, groups=hidden, act=act),
            SqueezeExcite(hidden) if squeeze else nn.Identity(),
            conv_bn(hidden, cout),
        )
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H / stride, W / stride)."""
        return x + self.body(x) if self.shortcut else self.body(x)
