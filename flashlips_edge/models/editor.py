"""The editor: a one-step U-Net on latents that moves the lips where the lips vector says (FlashLips, section 3.2).

As in the paper: reference latents through a small trainable backbone, the lips vector expanded to constant maps,
everything concatenated on channels, the residual to the input latent predicted in one pass. Our choices: widths and depths;
the lips vector also modulates every block; reference features are also read by attention, since an unseen face's mouth
is rarely at equal positions; only the latent rows of the lower face are seen and changed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LIPS = 12


class ModulatedBlock(nn.Module):
    """Residual block with group norms, scaled and shifted by the lips embedding: [B, in, h, w] -> [B, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, groups: int = 8) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm_out = nn.GroupNorm(groups, out_channels)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)  # [B, out, 1, 1]
        hidden = self.conv_in(F.silu(self.norm_in(x)))
        hidden = self.conv_out(F.silu(self.norm_out(hidden) * (1 + scale) + shift))
        return self.skip(x) + hidden


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

    x [B, width, h, w], references [B, K, reference_width, h, w] -> [B, width, h, w]. Positions are learned and shared by
    queries and keys, so that attention starts near home.
    """

    def __init__(self, width: int, reference_width: int, size: tuple[int, int], heads: int = 4, head_size: int = 16) -> None:
        super().__init__()
        inner = heads * head_size
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.query = nn.Conv2d(width, inner, 1)
        self.key = nn.Conv2d(reference_width, inner, 1)
        self.value = nn.Conv2d(reference_width, inner, 1)
        self.position = nn.Parameter(torch.randn(1, inner, *size) * 0.5)
        self.out = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor, references: Tensor) -> Tensor:
        b, k = references.shape[:2]
        flat = references.flatten(0, 1)  # [B*K, reference_width, h, w]
        query = self._heads(self.query(self.norm(x)) + self.position, b, 1)
        key = self._heads(self.key(flat) + self.position, b, k)
        value = self._heads(self.value(flat), b, k)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [B, heads, h*w, d]
        return x + self.out(mixed.transpose(2, 3).reshape(b, -1, x.shape[2], x.shape[3]))

    def _heads(self, x: Tensor, batch: int, count: int) -> Tensor:
        """[B*K, heads*d, h, w] -> [B, heads, K*h*w, d]."""
        d, h, w = x.shape[1] // self.heads, x.shape[2], x.shape[3]
        return x.reshape(batch, count, self.heads, d, h * w).permute(0, 2, 1, 4, 3).reshape(batch, self.heads, count * h * w, d)


class EditorUNet(nn.Module):
    """latent [B, C, h, w], reference_latents [B, K*C, h, w], lips [B, 12] -> edited_latent [B, C, h, w].

    ``widths`` are the channels at each halving of the resolution, ``blocks`` the blocks per level on the way down and up.
    ``size`` is the latent's height and width, ``rows`` the first and last row (exclusive) that are seen and changed.
    """

    def __init__(
        self,
        latent_channels: int,
        references: int,
        size: tuple[int, int],
        rows: tuple[int, int],
        widths: list[int],
        blocks: list[int],
        reference_width: int,
        embedding: int,
    ) -> None:
        super().__init__()
        self.references, self.rows = references, tuple(rows)
        seen = (rows[1] - rows[0], size[1])
        self.backbone = ReferenceBackbone(latent_channels, reference_width)
        self.embed = nn.Sequential(nn.Linear(LIPS, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.stem = nn.Conv2d(latent_channels + references * reference_width + LIPS, widths[0], 3, padding=1)
        self.attention = ReferenceAttention(widths[0], reference_width, seen)
        self.down = nn.ModuleList()
        self.reduce = nn.ModuleList()
        for level, width in enumerate(widths):
            self.down.append(nn.ModuleList(ModulatedBlock(width, width, embedding) for _ in range(blocks[level])))
            if level + 1 < len(widths):
                self.reduce.append(nn.Conv2d(width, widths[level + 1], 3, stride=2, padding=1))
        self.up = nn.ModuleList()
        self.enlarge = nn.ModuleList()
        for level in reversed(range(len(widths) - 1)):
            width = widths[level]
            self.enlarge.append(nn.Conv2d(widths[level + 1], width, 1))
            first = ModulatedBlock(2 * width, width, embedding)
            self.up.append(nn.ModuleList([first, *(ModulatedBlock(width, width, embedding) for _ in range(blocks[level] - 1))]))
        self.norm = nn.GroupNorm(8, widths[0])
        self.residual = nn.Conv2d(widths[0], latent_channels, 3, padding=1)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)  # type: ignore[arg-type]

    def forward(self, latent: Tensor, reference_latents: Tensor, lips: Tensor) -> Tensor:
        top, bottom = self.rows
        b, _, h, w = latent.shape
        seen = latent[:, :, top:bottom]
        flat = reference_latents[:, :, top:bottom].reshape(b * self.references, -1, bottom - top, w)
        references = self.backbone(flat)  # [B*K, r, rows, w]
        embedding = self.embed(lips)
        maps = lips[:, :, None, None].expand(-1, -1, bottom - top, w)  # [B, 12, rows, w]
        concatenated = references.reshape(b, -1, bottom - top, w)
        x = self.stem(torch.cat([seen, concatenated, maps], 1))
        x = self.attention(x, references.reshape(b, self.references, -1, bottom - top, w))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, embedding)
            if level < len(self.reduce):
                skips.append(x)
                x = self.reduce[level](x)
        for enlarge, blocks in zip(self.enlarge, self.up):
            x = F.interpolate(enlarge(x), scale_factor=2.0, mode="nearest")
            x = torch.cat([x, skips.pop()], 1)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, embedding)
        residual = self.residual(F.silu(self.norm(x)))  # [B, C, rows, w]
        return latent + F.pad(residual, (0, 0, top, h - bottom))
