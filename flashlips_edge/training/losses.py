"""The loss of masked reconstruction, term by term (FlashLips, eq. 9), its weights as data of the preset.

What the paper leaves open is chosen here: every term is a mean over what it looks at; without a face-parsing network the lips'
mask is a box; the feature terms are means over the layers of their network; two terms and one emphasis are our own and have
weight 0 in the paper's preset.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.training.boxes import LIPS, MASK, MOUTH
from flashlips_edge.training.loop import Losses
from flashlips_edge.training.pairs import Batch

LEAST_LIPS = 0.005  # of a picture must be lips, else its lips do not count: the parsing failed, or they are hidden


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; 0: not computed. The paper's (eq. 9) are 0.1, 0.1, 10, 100, 50, 5 and none of ours."""

    latent: float = 0.0  # L1 of latents
    latent_mask: float = 0.0  # the same within the lower face's mask m
    pixel_mask: float = 0.0  # L1 of pixels within the lower face's mask M
    lips: float = 0.0  # L1 of pixels within the lips' mask
    perceptual: float = 0.0  # features of VGG-19
    face: float = 0.0  # features of a face network, the paper's of VGGFace2
    pixel: float = 0.0  # ours: L1 of all pixels that were decoded
    edge: float = 0.0  # ours: L1 of the lips' gradients, against softness
    moving: float = 0.0  # ours: how much more a lip pixel counts where the two mouths of a pair differ


def masked_mean(error: Tensor, mask: Tensor, least: float) -> Tensor:
    """Mean of error [B, 1, H, W] within mask [B, 1, H, W] in {0, 1}, over the pictures of which at least the share ``least`` is
    masked; 0 where there is no such picture."""
    inside = (error * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1.0)  # [B]
    valid = (mask.flatten(1).mean(1) >= least).float()
    return (inside * valid).sum() / valid.sum().clamp_min(1.0)


def emphasis(truth: Tensor, other: Tensor, moving: float) -> Tensor:
    """Weight [B, 1, H, W] of the pixels that differ between two mouths of one head pose; with ``moving`` 6 about 0.5 on skin and 2
    between the lips, and 1 everywhere with 0."""
    if not moving:
        return torch.ones_like(truth[:, :1])
    change = (truth - other).abs().mean(1, keepdim=True)
    return 0.4 + moving * F.avg_pool2d(change, 5, stride=1, padding=2)


class FeatureLoss(nn.Module):
    """Mean over layers of the mean |maps(image) - maps(truth)| of a frozen network with ``maps(image) -> list[Tensor]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.network.maps(truth)  # type: ignore[operator]
        given = self.network.maps(image)  # type: ignore[operator]
        return torch.stack([(a - b).abs().float().mean() for a, b in zip(given, wanted)]).mean()


class ReconstructionLoss(nn.Module):
    """Terms by name, each times its weight, of edited latents against the frame that was wanted.

    ``decoder`` gives the lower picture [B, 3, H, S] of a latent; ``perceptual`` and ``face`` are networks with ``maps``.
    """

    def __init__(self, weights: LossWeights, decoder: nn.Module, perceptual: nn.Module, face: nn.Module) -> None:
        super().__init__()
        self.weights, self.decoder = weights, decoder
        self.perceptual, self.face = FeatureLoss(perceptual), FeatureLoss(face)

    def forward(self, edited: Tensor, batch: Batch) -> Losses:
        """edited [B, C, h, w] -> terms."""
        return self.terms(edited, self.decoder(edited).float(), batch)

    def terms(self, edited: Tensor, image: Tensor, batch: Batch) -> Losses:
        """The same of what was decoded already, image [B, 3, H, S]."""
        truth = batch.lower
        latent_error = (edited - batch.target).abs()
        error = (image - truth).abs()
        every = {
            "latent": lambda: latent_error.mean(),
            "latent_mask": lambda: MASK.cut(latent_error).mean(),
            "pixel": lambda: error.mean(),
            "pixel_mask": lambda: MASK.cut(error).mean(),
            "lips": lambda: self._lips(error, batch),
            "edge": lambda: edges(image - truth),
            "perceptual": lambda: self.perceptual(image, truth),
            "face": lambda: self.face(image, truth),
        }
        weights = asdict(self.weights)
        return {name: weights[name] * term() for name, term in every.items() if weights[name]}

    def _lips(self, error: Tensor, batch: Batch) -> Tensor:
        weight = emphasis(batch.lower, batch.other, self.weights.moving)
        return masked_mean(weight * error.mean(1, keepdim=True), batch.lips, LEAST_LIPS)


def edges(difference: Tensor) -> Tensor:
    """L1 of the gradients, down and across, of a difference [B, 3, H, S] of two pictures, in the lips' box."""
    box = LIPS.cut(difference)
    return box.diff(dim=2).abs().mean() + box.diff(dim=3).abs().mean()


def psnr(image: Tensor, truth: Tensor) -> float:
    """Mean PSNR in dB over the mouth box of crops or their lower parts, each picture alone."""
    error = MOUTH.cut(image.float().clamp(0, 1) - truth).square().mean((1, 2, 3))
    return float((-10 * error.clamp_min(1e-8).log10()).mean())
