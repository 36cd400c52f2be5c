"""The feature network: what a face looks like, for the perceptual loss, and whose face it is, for evaluation.

Our own stand-in for the pretrained VGG-19 and VGGFace2 networks of the paper (FlashLips, eq. 9): small, trained from nothing to tell
the training people apart (training/features.py).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError

SHIPPED = Path(__file__).parents[2] / "weights" / "features" / "features.safetensors"
WIDTHS = (24, 48, 96, 128, 160)
EMBEDDING = 64
BATCH_COUNTER = "num_batches_tracked"  # of training alone: files of weights may be without it


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


def fill(network: nn.Module, path: Path, given_as: str, advice: str) -> None:
    """Load the network's tensors from a safetensors file, which may hold others besides. Raises UserError, which ends with the advice,
    where it cannot be read, or a tensor is missing or of another shape."""
    try:
        given = load_file(path)
    except (OSError, SafetensorError):
        raise UserError(f"{given_as}: no such safetensors file, or a damaged one; {advice}") from None
    wanted = {name: value.shape for name, value in network.state_dict().items() if not name.endswith(BATCH_COUNTER)}
    for name, shape in wanted.items():
        if name not in given:
            raise UserError(f"{given_as}: {name} is missing; {advice}")
        if given[name].shape != shape:
            raise UserError(f"{given_as}: {name} is {list(given[name].shape)} and must be {list(shape)}; {advice}")
    network.load_state_dict({name: given[name] for name in wanted}, strict=False)


def load_features(path: Path = SHIPPED) -> FeatureNetwork:
    """The trained network, frozen and in inference mode. Raises UserError where the file is missing, damaged or another network's."""
    network = FeatureNetwork()
    fill(network, path, str(path), "give the weights that python -m flashlips_edge.training.features wrote")
    return network.eval().requires_grad_(False)


def likeness(network: FeatureNetwork, first: Tensor, second: Tensor) -> Tensor:
    """Cosine in [-1, 1], [B], of two faces [B, 3, 96, 96] each."""
    with torch.no_grad():
        return (network.embed(first) * network.embed(second)).sum(1)
