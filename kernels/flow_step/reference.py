"""flow_step in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def flow_step(
    z: Tensor, velocities: Tensor, size: float, guidance: float, enter_weight: Tensor, enter_bias: Tensor, before: Tensor, position: Tensor
) -> tuple[Tensor, Tensor]:
    """z' = z + size * (v_no + guidance * (v - v_no)), and the tokens that the velocity field reads z' as.

    z [B, T, 12], velocities [2B, T, 12] with the condition and then without it, before [2B, P, width], position [1, P + T, width]
    -> z' [B, T, 12] and tokens [2B, P + T, width]. Lipman et al. 2023; guidance as in Ho and Salimans 2022, equation 6.
    """
    heard, unheard = velocities.chunk(2, 0)
    z = z + size * (unheard + guidance * (heard - unheard))
    entered = F.linear(z, enter_weight, enter_bias)
    return z, torch.cat([before, torch.cat([entered, entered])], 1) + position
