"""AdaLN in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def adaln(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    branch: Tensor | None = None,
    gate: Tensor | None = None,
    eps: float = 1e-5,
    norm: str = "layer",
) -> tuple[Tensor, Tensor]:
    """x' = x + gate * branch, y = norm(x') * (1 + scale) + shift (AdaLN-zero, Peebles and Xie 2023) with
    norm(x) = (x - mean) / sqrt(variance + eps), or for "rms" x / sqrt(mean(x^2) + eps) (Zhang and Sennrich 2019).

    x, branch [B, L, width]; scale, shift, gate [B, L, width] or [B, 1, width] -> x', y."""
    if branch is not None and gate is not None:
        x = x + gate * branch
    centred = x - x.mean(-1, keepdim=True) if norm == "layer" else x
    return x, centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + eps) * (1 + scale) + shift
