"""The editor: one step on latents that moves the lips where the lips vector says (FlashLips, section 3.2), its frame and the U-Net.

As in the paper: reference latents through a small trainable backbone, the lips vector expanded to constant maps,
everything concatenated on channels, the residual to the input latent predicted in one pass; a U-Net or a transformer. Our
choices: widths and depths; the lips vector also modulates every block; reference features are also read by attention, since an
unseen face's mouth is rarely at equal positions: once at the start and, as recall, once at the end, when it is known what is
looked for; where the mouth is hidden, shares of the references' own latents are copied under the residual, so that teeth that
were seen need not be invented; only the latent rows of the lower face are seen and changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.models.layers import LIPS, AttentionBlock, GroupNormSiLU, LipsConv
from flashlips_edge.models.references import ReferenceAttention, ReferenceBackbone


class Editor(nn.Module, ABC):
    """latent [B, C, h, w], reference_latents [B, K*C, h, w], lips [B, 12] -> edited_latent [B, C, h, w].

    ``references`` is K, 1 to 4. ``size`` is the latent's height and width, ``rows`` the first and last row (exclusive) that are
    seen and changed. ``width`` are the channels at the latent's resolution. ``recall``: the references are read once more at the
    end. ``hidden``: top, bottom, left and right of the cells over the mouth that the editor does not see. Without them the paper's
    mask-free editor, which on a face unlike those it learned from leaves traces of the old lips. ``reach``: references are looked
    through at the hidden cells and so many around them only, None for everywhere. ``copies``: each hidden cell takes a share of
    every reference's latent there, as the last features say. A new editor changes nothing.

    References come with the most like the wanted picture first.
    """

    def __init__(
        self,
        latent_channels: int,
        references: int,
        size: tuple[int, int],
        rows: tuple[int, int],
        width: int,
        reference_width: int,
        embedding: int,
        recall: bool,
        hidden: tuple[int, int, int, int] | None,
        reach: int | None,
        copies: bool,
    ) -> None:
        super().__init__()
        if copies and hidden is None:
            raise ValueError("copies: only where hidden cells are given")
        self.references, self.size, self.rows = references, tuple(size), tuple(rows)
        shown = torch.ones(1, 1, *size)
        if hidden is not None:
            top, bottom, left, right = hidden
            shown[:, :, top:bottom, left:right] = 0
        self.register_buffer("shown", shown if hidden is not None else None, persistent=False)
        looked = _around(hidden, reach, self.rows, size[1])
        self.backbone = ReferenceBackbone(latent_channels, reference_width)
        self.embed = nn.Sequential(nn.Linear(LIPS, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.stem = LipsConv(latent_channels + references * reference_width, width)
        self.attention = ReferenceAttention(width, reference_width, looked)
        self.recall = ReferenceAttention(width, reference_width, looked) if recall else None
        self.norm = GroupNormSiLU(8, width)
        self.residual = nn.Conv2d(width, latent_channels, 3, padding=1)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)  # type: ignore[arg-type]
        self.copies = nn.Conv2d(width, references, 3, padding=1) if copies else None
        if self.copies is not None:
            nn.init.zeros_(self.copies.weight)
            nn.init.zeros_(self.copies.bias)  # type: ignore[arg-type]

    @abstractmethod
    def features(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The U-Net or the transformer: x [B, width, rows, w], embedding of the lips [B, embedding] -> [B, width, rows, w]."""

    def forward(self, latent: Tensor, reference_latents: Tensor, lips: Tensor) -> Tensor:
        top, bottom = self.rows
        b, _, h, w = latent.shape
        if self.shown is not None:
            latent = latent * self.shown
        flat = reference_latents[:, :, top:bottom].reshape(b * self.references, -1, bottom - top, w)
        references = self.backbone(flat)  # [B*K, r, rows, w]
        apart = references.reshape(b, self.references, -1, bottom - top, w)
        x = self.stem(torch.cat([latent[:, :, top:bottom], references.reshape(b, -1, bottom - top, w)], 1), lips)
        x = self.features(self.attention(x, apart), self.embed(lips))
        if self.recall is not None:
            x = self.recall(x, apart)
        x = self.norm(x)
        residual = self.residual(x)  # [B, C, rows, w]
        if self.copies is not None:
            shares = self.copies(x) * (1 - self.shown[:, :, top:bottom])  # [B, K, rows, w]
            residual = residual + (shares[:, :, None] * flat.reshape(b, self.references, -1, bottom - top, w)).sum(1)
        return latent + F.pad(residual, (0, 0, top, h - bottom))


def _around(hidden: tuple[int, int, int, int] | None, reach: int | None, rows: tuple[int, ...], width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right, counted from the first row that is seen, of ``hidden`` and ``reach`` cells around it; all without."""
    first, last = rows
    if hidden is None or reach is None:
        return 0, last - first, 0, width
    top, bottom, left, right = hidden
    return max(first, top - reach) - first, min(last, bottom + reach) - first, max(0, left - reach), min(width, right + reach)


class ModulatedBlock(nn.Module):
    """Residual block with group norms, scaled and shifted by the lips embedding: [B, in, h, w] -> [B, out, h, w]."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, groups: int = 8) -> None:
        super().__init__()
        self.norm_in = GroupNormSiLU(groups, in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.norm_out = GroupNormSiLU(groups, out_channels)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, 1)  # [B, out]
        hidden = self.conv_in(self.norm_in(x))
        hidden = self.conv_out(self.norm_out(hidden, scale, shift))
        return self.skip(x) + hidden


class EditorUNet(Editor):
    """The editor with a U-Net.

    ``widths`` are the channels at each halving of the resolution, ``blocks`` the blocks per level on the way down and up, ``heads``
    the heads of the self-attention after each block of a level, 0 for none.
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
        heads: list[int] | None = None,
        recall: bool = False,
        hidden: tuple[int, int, int, int] | None = None,
        reach: int | None = None,
        copies: bool = False,
    ) -> None:
        super().__init__(latent_channels, references, size, rows, widths[0], reference_width, embedding, recall, hidden, reach, copies)
        heads = heads or [0] * len(widths)

        def level(index: int, entering: int, width: int) -> nn.ModuleList:
            channels = [entering] + [width] * blocks[index]
            pairs = [
                [ModulatedBlock(a, b, embedding), *([AttentionBlock(b, heads[index])] if heads[index] else [])]
                for a, b in zip(channels[:-1], channels[1:])
            ]
            return nn.ModuleList(module for pair in pairs for module in pair)

        self.down = nn.ModuleList(level(i, width, width) for i, width in enumerate(widths))
        self.reduce = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(widths[:-1], widths[1:]))
        upwards = list(reversed(range(len(widths) - 1)))
        self.up = nn.ModuleList(level(i, 2 * widths[i], widths[i]) for i in upwards)
        self.enlarge = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in upwards)

    def features(self, x: Tensor, embedding: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for index, level in enumerate(self.down):
            x = self._through(level, x, embedding)
            if index < len(self.reduce):
                skips.append(x)
                x = self.reduce[index](x)
        for enlarge, level in zip(self.enlarge, self.up):
            x = F.interpolate(enlarge(x), scale_factor=2.0, mode="nearest")
            x = self._through(level, torch.cat([x, skips.pop()], 1), embedding)
        return x

    @staticmethod
    def _through(level: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        for module in level.children():
            x = module(x, embedding) if isinstance(module, ModulatedBlock) else module(x)
        return x
