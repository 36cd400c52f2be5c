"""What the editor reads of the reference latents: a small backbone (FlashLips, section 3.2) and our attention to its features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReferenceBackbone(nn.Module):
    """f_ref, the same for each reference: [N, C, h, w] -> [N, width, h, w]."""

    def __init__(self, latent_channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.stem(latent)
        return x + self.second(F.silu(self.first(F.silu(x))))


class ReferenceAttention(nn.Module):
    """Each position looks through all references for what its mouth should be made of.

    x [B, width, h, w], references [B, K, reference_width, h, w] -> [B, width, h, w]. ``box`` is top, bottom, left and right of the
    positions that look and are looked at. Positions are learned and shared by queries and keys, so that attention starts near
    home. A new one changes nothing.
    """

    def __init__(self, width: int, reference_width: int, box: tuple[int, int, int, int], heads: int = 4, head_size: int = 16) -> None:
        super().__init__()
        inner = heads * head_size
        self.heads, self.box = heads, box
        size = (box[1] - box[0], box[3] - box[2])
        self.norm = nn.GroupNorm(8, width)
        self.query = nn.Conv2d(width, inner, 1)
        self.key = nn.Conv2d(reference_width, inner, 1)
        self.value = nn.Conv2d(reference_width, inner, 1)
        self.position = nn.Parameter(torch.randn(1, inner, *size) * 0.5)
        self.out = nn.Conv2d(inner, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, references: Tensor) -> Tensor:
        (b, k), (h, w) = references.shape[:2], x.shape[2:]
        top, bottom, left, right = self.box
        flat = references[..., top:bottom, left:right].flatten(0, 1)  # [B*K, reference_width, box]
        query = self._heads(self.query(self.norm(x)[:, :, top:bottom, left:right]) + self.position, b, 1)
        key = self._heads(self.key(flat) + self.position, b, k)
        value = self._heads(self.value(flat), b, k)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [B, heads, positions of the box, d]
        found = self.out(mixed.transpose(2, 3).reshape(b, -1, bottom - top, right - left))
        return x + F.pad(found, (left, w - right, top, h - bottom))

    def _heads(self, x: Tensor, batch: int, count: int) -> Tensor:
        """[B*K, heads*d, h, w] -> [B, heads, K*h*w, d]."""
        d, h, w = x.shape[1] // self.heads, x.shape[2], x.shape[3]
        return x.reshape(batch, count, self.heads, d, h * w).permute(0, 2, 1, 4, 3).reshape(batch, self.heads, count * h * w, d)
