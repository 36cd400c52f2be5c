"""The lips vector: 8 expression + 4 mouth-crop dimensions (FlashLips, section 3.3), a teacher and the student that is shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXPRESSION, MOUTH = 8, 4
FACE_SIZE = 96  # px, the whole crop
MOUTH_SIZE = 64  # px, the crop's mouth
MOUTH_BOX = (0.48, 0.98, 0.25, 0.75)  # top, bottom, left, right of the mouth crop in crop units


class Downsample(nn.Module):
    """Halve the resolution, then a residual block with batch-independent norms: [B, in, h, w] -> [B, out, h/2, w/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.first = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm = nn.GroupNorm(8, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.halve(x)
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class ConvEncoder(nn.Module):
    """image [B, 3, s, s] in [0, 1] -> vector [B, out]; four halvings after a pixel-unshuffle, then a linear layer."""

    def __init__(self, size: int, width: int, out: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width]
        self.stem = nn.Conv2d(12, width, 3, padding=1)
        self.layers = nn.ModuleList(Downsample(a, b) for a, b in zip(widths[:-1], widths[1:]))
        side = size // 16
        self.norm = nn.GroupNorm(8, widths[-1])
        self.out = nn.Linear(widths[-1] * side * side, out)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(image * 2 - 1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.out(F.silu(self.norm(x)).flatten(1))


class LipsTeacher(nn.Module):
    """face [B, 3, 96, 96] and mouth [B, 3, 64, 64] -> lips [B, 12]; it says what a lips vector is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expression = ConvEncoder(FACE_SIZE, width, EXPRESSION)
        self.mouth = ConvEncoder(MOUTH_SIZE, width, MOUTH)

    def forward(self, face: Tensor, mouth: Tensor) -> Tensor:
        return torch.cat([self.expression(face), self.mouth(mouth)], 1)


class LipsEncoder(nn.Module):
    """The student: face [B, 3, 96, 96] in [0, 1], the whole crop, -> lips [B, 12]. Paper: ResNet-34; the size is the preset's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = ConvEncoder(FACE_SIZE, width, EXPRESSION + MOUTH)

    def forward(self, face: Tensor) -> Tensor:
        return self.encoder(face)
