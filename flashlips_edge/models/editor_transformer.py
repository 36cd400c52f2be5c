"""The editor with a vision transformer (FlashLips, section 3.2): slower than the U-Net and better in the paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flashlips_edge.models.editor import Editor
from flashlips_edge.models.layers import AdaLN, Attention


class TransformerLayer(nn.Module):
    """Layer of a vision transformer, modulated and gated by the lips embedding (adaLN-zero): x [B, L, width] -> the same."""

    def __init__(self, width: int, heads: int, embedding: int) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = AdaLN(width), AdaLN(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(embedding, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(embedding)[:, None].chunk(6, -1)  # [B, 1, width]
        x, normed = self.before_attention(x, scale_a, shift_a)
        x, normed = self.before_mlp(x, scale_m, shift_m, self.attention(normed), gate_a)
        return x + gate_m * self.mlp(normed)


class EditorTransformer(Editor):
    """The editor with a vision transformer over patches of ``patch`` x ``patch`` latent positions, ``width`` channels wide; the
    patches' pixels come and go with ``stem_width`` channels."""

    def __init__(
        self,
        latent_channels: int,
        references: int,
        size: tuple[int, int],
        rows: tuple[int, int],
        stem_width: int,
        patch: int,
        width: int,
        layers: int,
        heads: int,
        reference_width: int,
        embedding: int,
        recall: bool = False,
        hidden: tuple[int, int, int, int] | None = None,
        reach: int | None = None,
        copies: bool = False,
    ) -> None:
        super().__init__(latent_channels, references, size, rows, stem_width, reference_width, embedding, recall, hidden, reach, copies)
        tokens = (rows[1] - rows[0]) * size[1] // patch**2
        self.enter = nn.Conv2d(stem_width, width, patch, stride=patch)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(width, heads, embedding) for _ in range(layers))
        self.leave = nn.ConvTranspose2d(width, stem_width, patch, stride=patch)

    def features(self, x: Tensor, embedding: Tensor) -> Tensor:
        patches = self.enter(x)  # [B, width, rows/patch, w/patch]
        tokens = patches.flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            tokens = layer(tokens, embedding)
        return x + self.leave(tokens.transpose(1, 2).reshape(patches.shape))
