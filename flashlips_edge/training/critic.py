"""A critic of lower faces, for sharpness: it tells decoded ones from edited ones, patch by patch, and the editor learns to pass.

Beyond the paper, whose terms (eq. 9) all ask for the mean of what is possible where the lips vector leaves teeth and tongue open.
Least squares (Mao et al., LSGAN, 2017), and the critic's own features as a perceptual distance (Wang et al., pix2pixHD, 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.training.boxes import MASK
from flashlips_edge.training.loop import Losses
from flashlips_edge.training.losses import ReconstructionLoss
from flashlips_edge.training.pairs import Batch

WIDTHS = (32, 64, 128)
DETAIL = 8.0  # the pictures less their own blur, so much stronger: nothing else tells the two kinds apart
FOOL_WEIGHT = 0.05
ALIKE_WEIGHT = 0.5


class Critic(nn.Module):
    """Lower pictures [B, 3, H, S] in [0, 1] -> features of each layer and, last, a verdict [B, 1, h, w] on each patch of the lower face:
    1 for decoded, 0 for edited."""

    def __init__(self) -> None:
        super().__init__()
        steps = zip((3, *WIDTHS[:-1]), WIDTHS)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in steps)
        self.verdict = nn.Conv2d(WIDTHS[-1], 1, 3, padding=1)

    def forward(self, picture: Tensor) -> list[Tensor]:
        lower = MASK.cut(picture)
        x, found = DETAIL * (lower - F.avg_pool2d(lower, 5, stride=1, padding=2, count_include_pad=False)), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(x)
        return [*found, self.verdict(x)]


def critique(critic: Critic, edited: Tensor, decoded: Tensor) -> Losses:
    """``fool`` and ``alike`` move what made the edited pictures [B, 3, H, S] and not the critic, ``critic`` the critic alone.

    ``decoded`` are the pictures of the wanted latents, not the photographs: the autoencoder's own softness is not the editor's fault.
    """
    frozen = {name: value.detach() for name, value in critic.named_parameters()}
    *given, verdict = torch.func.functional_call(critic, frozen, (edited,))
    *wanted, true = critic(decoded)
    alike = [(a - b.detach()).abs().mean() / b.detach().abs().mean() for a, b in zip(given, wanted)]
    return {
        "fool": FOOL_WEIGHT * (verdict - 1).square().mean(),
        "alike": ALIKE_WEIGHT * torch.stack(alike).mean(),
        "critic": (true - 1).square().mean() + critic(edited.detach())[-1].square().mean(),
    }


def sharp_terms(reconstruction: ReconstructionLoss, critic: Critic, edited: Tensor, batch: Batch) -> Losses:
    """The terms of eq. 9 and the critic's of edited latents [B, C, h, w]."""
    image = reconstruction.decoder(edited).float()
    with torch.no_grad():
        decoded = reconstruction.decoder(batch.target).float()
    return {**reconstruction.terms(edited, image, batch), **critique(critic, image, decoded)}
