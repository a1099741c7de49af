"""A plain network of dense 3×3 convolutions, batch norm and ReLU: no branches at all.

The kindest to INT8 and to small accelerators: every layer is the same fast kernel.
"""

from typing import Tuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from edgecount.toolchain.train.blocks import ConvBnAct


class Options(BaseModel):
    """Width and depth of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Tuple[int, int, int, int, int] = Field(
        (8, 16, 32, 64, 112), description="Channels of the stem and of the four stages."
    )
    depth: Tuple[int, int, int, int] = Field(
        (1, 2, 3, 2), description="3×3 convolutions in each stage, the strided one included."
    )
    act: str = Field("relu", description="relu, silu or hardswish.")


class Plain(nn.Module):
    """Stem at stride 2 and four stages, each halving the resolution."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        c, act = options.channels, options.act
        self.stem = ConvBnAct(3, c[0], 3, 2, act=act)
        for i, n in enumerate(options.depth):
            layers = [ConvBnAct(c[i], c[i + 1], 3, 2, act=act)]
            layers += [ConvBnAct(c[i + 1], c[i + 1], 3, act=act) for _ in range(n - 1)]
            self.add_module(f"stage{i + 2}", nn.Sequential(*layers))
        self.channels = c[2:]

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to features at strides 8, 16, 32."""
        c3 = self.stage3(self.stage2(self.stem(x)))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


def create(options: Options) -> nn.Module:
    """Build the backbone with random weights."""
    return Plain(options)
