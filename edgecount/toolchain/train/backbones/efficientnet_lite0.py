"""EfficientNet-Lite0: EfficientNet-B0 (arXiv:1905.11946) without squeeze and excite, with ReLU.

ReLU stands for the original's ReLU6, whose clipping range a calibrator finds by itself.
"""

from typing import List, Tuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from edgecount.toolchain.train.blocks import ConvBnAct, InvertedResidual

# name of the stage, blocks as (expansion, output channels, repeats, first stride, kernel)
_STAGES = (
    ("stage2", ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3))),
    ("stage3", ((6, 40, 2, 2, 5),)),
    ("stage4", ((6, 80, 3, 2, 3), (6, 112, 3, 1, 5))),
    ("stage5", ((6, 192, 4, 2, 5), (6, 320, 1, 1, 3))),
)


class Options(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EfficientNetLite0(nn.Module):
    """Stem at stride 2 and sixteen inverted residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnAct(3, 32, 3, 2)
        cin = 32
        for name, groups in _STAGES:
            blocks: List[nn.Module] = []
            for expansion, cout, repeats, first, kernel in groups:
                for i in range(repeats):
                    stride = first if i == 0 else 1
                    hidden = cin * expansion
                    blocks.append(
                        InvertedResidual(cin, hidden, cout, kernel, stride, False, "relu")
                    )
                    cin = cout
            self.add_module(name, nn.Sequential(*blocks))
        self.channels = (40, 112, 320)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to features at strides 8, 16, 32."""
        c3 = self.stage3(self.stage2(self.stem(x)))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


def create(options: Options) -> nn.Module:  # noqa: ARG001 - every backbone takes its options
    """Build the backbone with random weights."""
    return EfficientNetLite0()
