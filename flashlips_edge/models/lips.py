"""The lips vector: 8 expression + 4 mouth-crop dimensions (FlashLips, section 3.3), a teacher and the student that is shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.models.layers import GroupNormSiLU
from flashlips_edge.models.resnet import ResNet

EXPRESSION, MOUTH = 8, 4
FACE_SIZE = 96  # px, the whole crop, where the preset names no other
MOUTH_SIZE = 64  # px, the crop's mouth
MOUTH_BOX = (0.48, 0.98, 0.25, 0.75)  # top, bottom, left, right of the mouth crop in crop units


class Downsample(nn.Module):
    """Halve the resolution, then a residual block with batch-independent norms: [B, in, h, w] -> [B, out, h/2, w/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.first = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm = GroupNormSiLU(8, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.halve(x)
        return x + self.second(F.silu(self.first(self.norm(x))))


class ConvEncoder(nn.Module):
    """image [B, 3, s, s] in [0, 1] -> vector [B, out]; four halvings after a pixel-unshuffle, then a linear layer."""

    def __init__(self, size: int, width: int, out: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width]
        self.stem = nn.Conv2d(12, width, 3, padding=1)
        self.layers = nn.ModuleList(Downsample(a, b) for a, b in zip(widths[:-1], widths[1:]))
        side = size // 16
        self.norm = GroupNormSiLU(8, widths[-1])
        self.out = nn.Linear(widths[-1] * side * side, out)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(F.pixel_unshuffle(image * 2 - 1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.out(self.norm(x).flatten(1))


class ProjectedExpression(nn.Module):
    """A given expression encoder, frozen, and the MLP that carries its features to the lips vector's 8 dimensions.

    ``encoder`` is any module face [B, 3, E, E] in [0, 1] -> [B, features]; it resizes and normalises the face as it needs.
    """

    def __init__(self, encoder: nn.Module, features: int, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.projector = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, EXPRESSION))

    def train(self, mode: bool = True) -> ProjectedExpression:
        super().train(mode)
        self.encoder.eval()  # frozen: its norms and dropout too
        return self

    def forward(self, face: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.encoder(face)
        return self.projector(features)


class LipsTeacher(nn.Module):
    """face [B, 3, E, E] and mouth [B, 3, 64, 64] -> lips [B, 12]; it says what a lips vector is.

    ``expression`` is the expression encoder's place: any module face -> [B, 8], such as ``ProjectedExpression`` of a pretrained one;
    none: our own, trained with the rest. E is ``face_size``, None where a given encoder takes faces of any size.
    """

    def __init__(self, width: int, expression: nn.Module | None = None) -> None:
        super().__init__()
        self.face_size = FACE_SIZE if expression is None else None
        self.expression = ConvEncoder(FACE_SIZE, width, EXPRESSION) if expression is None else expression
        self.mouth = ConvEncoder(MOUTH_SIZE, width, MOUTH)

    def forward(self, face: Tensor, mouth: Tensor) -> Tensor:
        return torch.cat([self.expression(face), self.mouth(mouth)], 1)


class LipsEncoder(nn.Module):
    """The student: face [B, 3, E, E] in [0, 1], the whole crop, unaligned -> lips [B, 12]; E is ``face_size``.

    ``blocks`` are the blocks of a residual network's four stages, [3, 4, 6, 3] being the paper's ResNet-34; none: a small one.
    """

    def __init__(self, width: int, face_size: int = FACE_SIZE, blocks: list[int] | None = None) -> None:
        super().__init__()
        out = EXPRESSION + MOUTH
        self.encoder = ResNet(width, blocks, out) if blocks else ConvEncoder(face_size, width, out)

    def forward(self, face: Tensor) -> Tensor:
        return self.encoder(face)
