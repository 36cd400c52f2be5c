"""The units that the networks share, and that fused kernels can stand in for: each does in one call what one kernel does.

Each is a module with its own parameters and is called as a module, so that another implementation of the same parameters can
take its place by its class alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LIPS = 12  # dimensions of the lips vector


class GroupNormSiLU(nn.GroupNorm):
    """x [B, C, h, w], scale and shift [B, C] or neither -> silu(norm(x) * (1 + scale) + shift), [B, C, h, w]."""

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        x = super().forward(x)
        if scale is not None and shift is not None:
            x = x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return F.silu(x)


class LipsConv(nn.Conv2d):
    """x [B, C, h, w], lips [B, 12] -> 3x3 convolution of x and the lips vector expanded to maps, [B, out, h, w]
    (FlashLips, section 3.2). The weight is [out, C + 12, 3, 3], the lips vector's part last."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels + LIPS, out_channels, 3, padding=1)

    def forward(self, x: Tensor, lips: Tensor) -> Tensor:
        maps = lips[:, :, None, None].expand(-1, -1, x.shape[2], x.shape[3])  # [B, 12, h, w]
        return super().forward(torch.cat([x, maps], 1))


class Attention(nn.Module):
    """Multi-head self-attention with its projections, x [B, L, width] -> [B, L, width]; heads of width / heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, length, width = x.shape
        q, k, v = self.qkv(x).reshape(b, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, heads, L, width / heads]
        return self.project(mixed.transpose(1, 2).reshape(b, length, width))


class AttentionBlock(nn.Module):
    """Self-attention of the positions of a map: x + project(attention(qkv(norm(x)))), [B, C, h, w] -> the same.

    A new block changes nothing: its projection starts at zero."""

    def __init__(self, width: int, heads: int, groups: int = 8) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.attention = Attention(width, heads)
        nn.init.zeros_(self.attention.project.weight)
        nn.init.zeros_(self.attention.project.bias)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # [B, h*w, C]
        return x + self.attention(tokens).transpose(1, 2).reshape(x.shape)


class AdaLN(nn.Module):
    """Gated residual and modulated LayerNorm (AdaLN, Peebles and Xie 2023): x' = x + gate * branch, or x where there is no branch,
    and y = norm(x') * (1 + scale) + shift. No parameters.

    x and branch [B, L, width]; scale, shift and gate [B, L, width], or [B, 1, width] for all steps alike -> x' and y [B, L, width].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(
        self, x: Tensor, scale: Tensor, shift: Tensor, branch: Tensor | None = None, gate: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if branch is not None and gate is not None:
            x = x + gate * branch
        return x, F.layer_norm(x, (self.width,)) * (1 + scale) + shift


class FlowStep(nn.Module):
    """One guided step of flow matching: z + size * (v_no + guidance * (v - v_no)). No parameters.

    z [B, T, 12]; velocities [2B, T, 12], with the condition and then without it; ``size`` in flow time -> [B, T, 12]."""

    def __init__(self, guidance: float) -> None:
        super().__init__()
        self.guidance = guidance

    def forward(self, z: Tensor, velocities: Tensor, size: float) -> Tensor:
        heard, unheard = velocities.chunk(2, 0)
        return z + size * (unheard + self.guidance * (heard - unheard))
