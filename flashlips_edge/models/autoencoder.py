"""The tiny autoencoder: pixels to latents 8x down and back, plain residual blocks, no norms, no sampling.

The paper uses the SDXL VAE (FlashLips, section 3.1); the size and layout of this one are our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Residual block: x + conv(silu(conv(silu(x)))), [B, C, h, w] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class LatentEncoder(nn.Module):
    """image [B, 3, S, S] in [0, 1] -> latent [B, C, S/8, S/8]."""

    def __init__(
        self, widths: tuple[int, int, int] = (32, 64, 128), blocks: tuple[int, int, int] = (1, 1, 1), latent_channels: int = 16
    ) -> None:
        super().__init__()
        a, b, c = widths
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, a, 3, padding=1),  # [B, a, S/2, S/2]
            *(Block(a) for _ in range(blocks[0])),
            nn.Conv2d(a, b, 3, stride=2, padding=1),  # [B, b, S/4, S/4]
            *(Block(b) for _ in range(blocks[1])),
            nn.Conv2d(b, c, 3, stride=2, padding=1),  # [B, c, S/8, S/8]
            *(Block(c) for _ in range(blocks[2])),
            nn.SiLU(),
            nn.Conv2d(c, latent_channels, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image * 2 - 1)


class LatentDecoder(nn.Module):
    """edited_latent [B, C, S/8, S/8] -> image [B, 3, S, S], in [0, 1] when not training."""

    def __init__(
        self, widths: tuple[int, int, int] = (32, 64, 128), blocks: tuple[int, int, int] = (1, 2, 2), latent_channels: int = 16
    ) -> None:
        super().__init__()
        a, b, c = widths
        self.layers = nn.Sequential(
            nn.Conv2d(latent_channels, c, 3, padding=1),  # [B, c, S/8, S/8]
            *(Block(c) for _ in range(blocks[2])),
            nn.Conv2d(c, 4 * b, 3, padding=1),
            nn.PixelShuffle(2),  # [B, b, S/4, S/4]
            *(Block(b) for _ in range(blocks[1])),
            nn.Conv2d(b, 4 * a, 3, padding=1),
            nn.PixelShuffle(2),  # [B, a, S/2, S/2]
            *(Block(a) for _ in range(blocks[0])),
            nn.SiLU(),
            nn.Conv2d(a, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, edited_latent: Tensor) -> Tensor:
        image = self.layers(edited_latent) / 2 + 0.5
        return image if self.training else image.clamp(0, 1)


class Autoencoder(nn.Module):
    """Encoder and decoder trained together; the two are exported as two graphs."""

    def __init__(
        self, widths: tuple[int, int, int], encoder_blocks: tuple[int, int, int], decoder_blocks: tuple[int, int, int], latent_channels: int
    ) -> None:
        super().__init__()
        self.encoder = LatentEncoder(tuple(widths), tuple(encoder_blocks), latent_channels)  # type: ignore[arg-type]
        self.decoder = LatentDecoder(tuple(widths), tuple(decoder_blocks), latent_channels)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image))

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Latents without a gradient, for the stages that come after."""
        return self.encoder(image)
