"""GroupNorm + SiLU in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float = 1e-5,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x' = x + residual, y = silu(norm(x') * (1 + scale) + shift) with norm(x) = (x - mean) / sqrt(variance + eps) * weight + bias
    over each group of channels (Wu and He 2018); x, residual [B, C, h, w], weight, bias [C], scale, shift [B, C] -> x', y."""
    if residual is not None:
        x = x + residual
    variance, mean = torch.var_mean(x.reshape(x.shape[0], groups, -1), 2, correction=0, keepdim=True)
    y = ((x.reshape(x.shape[0], groups, -1) - mean) / torch.sqrt(variance + eps)).reshape(x.shape)
    y = y * weight[:, None, None] + bias[:, None, None]
    if scale is not None and shift is not None:
        y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return x, F.silu(y)
