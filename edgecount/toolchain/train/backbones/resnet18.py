"""ResNet-18 (arXiv:1512.03385), its width scaled."""

from typing import List, Tuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from edgecount.toolchain.train.blocks import ConvBnAct, conv_bn


class Options(BaseModel):
    """Size of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(64, ge=8, description="Channels of the stem and of the first stage.")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a residual connection."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBnAct(cin, cout, 3, stride)
        self.conv2 = conv_bn(cout, cout, 3)
        same = stride == 1 and cin == cout
        self.shortcut = nn.Identity() if same else conv_bn(cin, cout, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H / stride, W / stride)."""
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class ResNet18(nn.Module):
    """Stem, max pool and four stages of two blocks."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        w = options.width
        widths = (w, w, 2 * w, 4 * w, 8 * w)
        self.stem = nn.Sequential(ConvBnAct(3, w, 7, 2), nn.MaxPool2d(3, 2, 1))
        for i in range(4):
            stride = 1 if i == 0 else 2
            blocks: List[nn.Module] = [BasicBlock(widths[i], widths[i + 1], stride)]
            blocks.append(BasicBlock(widths[i + 1], widths[i + 1], 1))
            self.add_module(f"stage{i + 1}", nn.Sequential(*blocks))
        self.channels = widths[2:]

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) to features at strides 8, 16, 32."""
        c3 = self.stage2(self.stage1(self.stem(x)))
        c4 = self.stage3(c3)
        return c3, c4, self.stage4(c4)


def create(options: Options) -> nn.Module:
    """Build the backbone with random weights."""
    return ResNet18(options)
