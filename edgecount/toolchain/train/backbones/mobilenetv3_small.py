"""MobileNetV3-small (arXiv:1905.02244, table 2), without its classifier."""

from typing import Tuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from edgecount.toolchain.train.blocks import ConvBnAct, InvertedResidual

# kernel, expanded channels, output channels, squeeze and excite, activation, stride
_STAGE2 = [(3, 16, 16, True, "relu", 2)]
_STAGE3 = [(3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1)]
_STAGE4 = [
    (5, 96, 40, True, "hardswish", 2),
    (5, 240, 40, True, "hardswish", 1),
    (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", 1),
]
_STAGE5 = [
    (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1),
    (5, 576, 96, True, "hardswish", 1),
]


class Options(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MobileNetV3Small(nn.Module):
    """Stem at stride 2 and eleven inverted residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBnAct(3, 16, 3, 2, act="hardswish")
        cin = 16
        for name, rows in (
            ("stage2", _STAGE2),
            ("stage3", _STAGE3),
            ("stage4", _STAGE4),
            ("stage5", _STAGE5),
        ):
            blocks = []
            for kernel, hidden, cout, squeeze, act, stride in rows:
                blocks.append(InvertedResidual(cin, hidden, cout, kernel, stride, squeeze, act))
                cin = cout
            self.add_module(name, nn.Sequential(*blocks))
        self.channels = (24, 48, 96)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to features at strides 8, 16, 32."""
        c3 = self.stage3(self.stage2(self.stem(x)))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


def create(options: Options) -> nn.Module:  # noqa: ARG001 - every backbone takes its options
    """Build the backbone with random weights."""
    return MobileNetV3Small()
