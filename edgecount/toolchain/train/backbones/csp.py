"""CSPDarknet of YOLOX (arXiv:2107.08430), with a plain strided convolution as its stem.

The default is YOLOX-nano's backbone: a quarter of the width, depthwise 3×3 convolutions.
"""

from typing import List, Tuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from edgecount.toolchain.train.blocks import ConvBnAct, CspLayer, SpatialPyramidPooling, conv3


class Options(BaseModel):
    """Size and kind of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Tuple[int, int, int, int, int] = Field(
        (16, 32, 64, 128, 256), description="Channels of the stem and of the four stages."
    )
    depth: Tuple[int, int, int, int] = Field((1, 3, 3, 1), description="Bottlenecks in each stage.")
    depthwise: bool = Field(True, description="Depthwise + 1×1 instead of dense 3×3 convolutions.")
    stem_kernel: int = Field(3, description="3, or 6 (YOLOX's focus layer as one convolution).")
    act: str = Field("relu", description="relu, silu or hardswish.")


class Csp(nn.Module):
    """Stem at stride 2 and four stages, each halving the resolution."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        c, act = options.channels, options.act
        self.stem = ConvBnAct(3, c[0], options.stem_kernel, 2, act=act)
        self.stem.conv.padding = ((options.stem_kernel - 1) // 2,) * 2
        for i, n in enumerate(options.depth):
            layers: List[nn.Module] = [conv3(c[i], c[i + 1], 2, options.depthwise, act)]
            last = i == len(options.depth) - 1
            if last:
                layers.append(SpatialPyramidPooling(c[i + 1], c[i + 1], act))
            layers.append(CspLayer(c[i + 1], c[i + 1], n, not last, options.depthwise, act))
            self.add_module(f"stage{i + 2}", nn.Sequential(*layers))
        self.channels = c[2:]

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to features at strides 8, 16, 32."""
        x = self.stage2(self.stem(x))
        c3 = self.stage3(x)
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


def create(options: Options) -> nn.Module:
    """Build the backbone with random weights."""
    return Csp(options)
