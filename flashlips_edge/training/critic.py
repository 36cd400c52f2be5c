"""A critic of mouths, for sharpness: it tells decoded mouths from edited ones, patch by patch, and the editor learns to pass.

Beyond the paper, whose terms (eq. 9) all ask for the mean of what is possible where the lips vector leaves teeth and tongue open.
Least squares (Mao et al., LSGAN, 2017), and the critic's own features as a perceptual distance (Wang et al., pix2pixHD, 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.training.boxes import LIPS
from flashlips_edge.training.loop import Losses

WIDTHS = (32, 64, 128)
DETAIL = 8.0  # the pictures less their own blur, so much stronger: nothing else tells the two kinds apart
FOOL_WEIGHT = 0.02
ALIKE_WEIGHT = 0.5


class Critic(nn.Module):
    """Lower pictures [B, 3, H, S] in [0, 1] -> features of each layer and, last, a verdict [B, 1, h, w] on each patch of the lips' box:
    1 for decoded, 0 for edited."""

    def __init__(self) -> None:
        super().__init__()
        steps = zip((3, *WIDTHS[:-1]), WIDTHS)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in steps)
        self.verdict = nn.Conv2d(WIDTHS[-1], 1, 3, padding=1)

    def forward(self, picture: Tensor) -> list[Tensor]:
        mouth = LIPS.cut(picture)
        x, found = DETAIL * (mouth - F.avg_pool2d(mouth, 5, stride=1, padding=2, count_include_pad=False)), []
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
