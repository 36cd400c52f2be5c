"""The SDXL VAE as autoencoder of preset paper (FlashLips, section 3.1), through diffusers, with weights that the user gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flashlips_edge.errors import UserError

ADVICE = "it must be the folder of the SDXL VAE as diffusers writes it"


class SDXLEncoder(nn.Module):
    """image [B, 3, S, S] in [0, 1] -> latent [B, 4, S/8, S/8]: the posterior's mean, scaled to unit deviation."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant = vae.encoder, vae.quant_conv
        self.scale = float(vae.config.scaling_factor)

    def forward(self, image: Tensor) -> Tensor:
        return self.quant(self.encoder(image * 2 - 1)).chunk(2, 1)[0] * self.scale


class SDXLDecoder(nn.Module):
    """edited_latent [B, 4, S/8, S/8] -> image [B, 3, S, S], in [0, 1] when not training."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder, self.quant = vae.decoder, vae.post_quant_conv
        self.scale = float(vae.config.scaling_factor)

    def forward(self, edited_latent: Tensor) -> Tensor:
        image = self.decoder(self.quant(edited_latent / self.scale)) / 2 + 0.5
        return image if self.training else image.clamp(0, 1)


class SDXLAutoencoder(nn.Module):
    """The two halves of a diffusers ``AutoencoderKL``, with the interface of our own autoencoder; frozen."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = SDXLEncoder(vae), SDXLDecoder(vae)
        self.latent_channels = int(vae.config.latent_channels)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image))

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Latents without a gradient, for the stages that come after."""
        return self.encoder(image)


def load_sdxl(folder: Path) -> SDXLAutoencoder:
    """The SDXL VAE in ``folder``: config.json and diffusion_pytorch_model.safetensors as diffusers writes them.

    Raises:
        UserError: diffusers is not installed, a file is missing or damaged, or the files are not an AutoencoderKL's.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise UserError(f"--sdxl {folder}: the SDXL VAE needs diffusers; pip install diffusers") from None
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"--sdxl {folder}: {name} is missing; {ADVICE}")
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"--sdxl {folder}: config.json is damaged; {ADVICE}") from None
    if kind != "AutoencoderKL":
        raise UserError(f"--sdxl {folder}: config.json is not an AutoencoderKL's; {ADVICE}")
    how = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False, "output_loading_info": True}
    try:
        vae, found = AutoencoderKL.from_pretrained(folder, **how)
        network = SDXLAutoencoder(vae)
    except Exception as error:  # diffusers has many words for files that do not fit or are damaged
        why = f"its files are damaged or do not fit each other ({type(error).__name__})"
        raise UserError(f"--sdxl {folder}: {why}; {ADVICE}") from None
    if missing := found["missing_keys"]:  # which diffusers would leave as they are initialised
        raise UserError(f"--sdxl {folder}: diffusion_pytorch_model.safetensors lacks {min(missing)}; {ADVICE}")
    return network
