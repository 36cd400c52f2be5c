"""attention_block in plain torch: the formula, and what the backward pass goes through."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def attention_block(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    heads: int,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    groups: int = 1,
    eps: float = 1e-5,
    lengths: Tensor | None = None,
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V between its projections (Vaswani et al. 2017, equation 1).

    x [B, L, C] or [B, C, h, w] -> the same shape. With a norm the result is x + attention(group_norm(x)), without one it is
    attention(x). Keys at and past lengths [B] are not seen.
    """
    tokens = x if x.ndim == 3 else x.flatten(2).transpose(1, 2)  # [B, L, C]
    b, length, width = tokens.shape
    hidden = tokens
    if norm_weight is not None:
        hidden = F.group_norm(tokens.transpose(1, 2), groups, norm_weight, norm_bias, eps).transpose(1, 2)
    q, k, v = F.linear(hidden, qkv_weight, qkv_bias).reshape(b, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
    seen = None if lengths is None else (torch.arange(length, device=x.device) < lengths[:, None])[:, None, None]  # [B, 1, 1, L]
    mixed = F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).reshape(b, length, width)
    out = F.linear(mixed, project_weight, project_bias)
    if norm_weight is not None:
        out = tokens + out
    return out if x.ndim == 3 else out.transpose(1, 2).reshape(x.shape)
