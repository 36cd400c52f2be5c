"""The feature network: what a face looks like, for the perceptual loss, and whose face it is, for evaluation.

Our own stand-in for the pretrained VGG-19 and VGGFace2 networks of the paper (FlashLips, eq. 9): small, trained from nothing to tell
the training people apart (training/features.py).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

SHIPPED = Path(__file__).parents[2] / "weights" / "features" / "features.safetensors"
WIDTHS = (24, 48, 96, 128, 160)
EMBEDDING = 64


class Stage(nn.Module):
    """Halve the resolution, then a residual convolution; norms of the whole training set, so that a crop has its picture's features.

    [B, in, h, w] -> [B, out, h/2, w/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm_halve = nn.BatchNorm2d(out_channels)
        self.mix = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm_mix = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_halve(self.halve(x)))
        return F.relu(x + self.norm_mix(self.mix(x)))


class FeatureNetwork(nn.Module):
    """``maps``: image [B, 3, H, W] in [0, 1], any size from 32 -> features [B, 24, H/2, W/2] and four halvings more, for a loss.

    ``embed``: face [B, 3, 96, 96], the whole crop, -> unit vectors [B, 64]; the dot product of two is their likeness.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Stage(a, b) for a, b in zip((3, *WIDTHS[:-1]), WIDTHS))
        self.project = nn.Linear(WIDTHS[-1], EMBEDDING)

    def maps(self, image: Tensor) -> list[Tensor]:
        x, found = image * 2 - 1, []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def embed(self, face: Tensor) -> Tensor:
        return F.normalize(self.project(self.maps(face)[-1].mean((2, 3))).float(), dim=1)

    def forward(self, face: Tensor) -> Tensor:
        return self.embed(face)


def load_features(path: Path = SHIPPED) -> FeatureNetwork:
    """The trained network, frozen and in inference mode."""
    network = FeatureNetwork()
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()}, strict=False)  # no batch counters
    return network.eval().requires_grad_(False)


def likeness(network: FeatureNetwork, first: Tensor, second: Tensor) -> Tensor:
    """Cosine in [-1, 1], [B], of two faces [B, 3, 96, 96] each."""
    with torch.no_grad():
        return (network.embed(first) * network.embed(second)).sum(1)
