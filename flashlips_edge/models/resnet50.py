"""ResNet-50 as a feature network for the face term of the loss (He et al. 2016; VGGFace2, Cao et al. 2018), from a file of the user's."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut: [B, in, h, w] -> [B, 4 * width, h/stride, w/stride]."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)))
        hidden = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(hidden)))))
        return F.relu(hidden + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """``maps``: image [B, 3, H, W] in [0, 1] -> the outputs of the four stages; weights named as torchvision does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            width = 64 * 2**stage
            blocks = []
            for index in range(count):
                blocks.append(Bottleneck(channels, width, 2 if stage and not index else 1))
                channels = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def maps(self, image: Tensor) -> list[Tensor]:
        x, found = F.max_pool2d(F.relu(self.bn1(self.conv1(image * 2 - 1))), 3, 2, padding=1), []
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
            found.append(x)
        return found
