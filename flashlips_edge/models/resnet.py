"""A residual network after He et al. (2015): ResNet-34 with blocks [3, 4, 6, 3] and width 64, with batch-independent norms."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 8


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, in, h, w] -> [B, out, h/stride, w/stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm_first = nn.GroupNorm(GROUPS, out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm_second = nn.GroupNorm(GROUPS, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride) if stride > 1 or in_channels != out_channels else nn.Identity()
        nn.init.zeros_(self.norm_second.weight)  # a new block passes its input on

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm_first(self.first(x)))
        return F.relu(self.shortcut(x) + self.norm_second(self.second(hidden)))


class ResNet(nn.Module):
    """image [B, 3, s, s] in [0, 1], any s from 32 -> vector [B, out]; ``width`` channels in the first of four stages, doubled in each."""

    def __init__(self, width: int, blocks: list[int], out: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.norm = nn.GroupNorm(GROUPS, width)
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for index in range(count):
                stride = 2 if stage and not index else 1
                stages.append(ResidualBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.layers = nn.Sequential(*stages)
        self.out = nn.Linear(channels, out)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(image * 2 - 1)))
        x = self.layers(F.max_pool2d(x, 3, stride=2, padding=1))
        return self.out(x.mean((2, 3)))
