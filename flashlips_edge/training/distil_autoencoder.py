"""The autoencoder of preset paper: our own, distilled into the SDXL VAE's latent space, so that one editor serves both.

    python -m flashlips_edge.training.distil_autoencoder --sdxl sdxl-vae --clips work/clips --out work/paper

Our encoder learns the VAE's latents, our decoder the pictures of both. Whole crops, since the VAE's norms and attention see all
of a picture: a window alone has other latents than the same window in its crop.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.errors import UserError
from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.sdxl import SDXLAutoencoder, load_sdxl
from flashlips_edge.training.clips import Clip, load_clips, set_weights
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.loop import Losses, Schedule, on, train
from flashlips_edge.training.losses import psnr

LATENT_WEIGHT = 1.0  # latents have unit deviation, pixels about a quarter of it
WATCHED = 16  # held-out pictures


class DistillationLoss(nn.Module):
    """L1 of the latents and of the pictures that our decoder makes of the VAE's latent and of our own; image [B, 3, S, S]."""

    def __init__(self, vae: SDXLAutoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, module: nn.Module, image: Tensor) -> Losses:
        assert isinstance(module, Autoencoder)
        theirs, ours = self.vae.encode(image), module.encoder(image)
        return {
            "latent": LATENT_WEIGHT * (ours - theirs).abs().mean(),
            "pixel": (module.decoder(theirs) - image).abs().mean(),
            "pixel_own": (module.decoder(ours) - image).abs().mean(),
        }


def pictures(clips: list[Clip], weights: np.ndarray, generator: np.random.Generator, count: int) -> Tensor:
    """Random crops [count, 3, S, S] in [0, 1], mirrored and with stretched colours."""
    result = []
    for index in generator.choice(len(clips), count, p=weights):
        crops = clips[index].crops
        picture = crops[generator.integers(len(crops))] / np.float32(255)
        if generator.random() < 0.5:
            picture = picture[:, ::-1]
        result.append(picture ** generator.uniform(0.7, 1.4) * generator.uniform(0.7, 1.0, 3))
    return torch.from_numpy(np.stack(result).astype(np.float32)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def main(
    sdxl: Annotated[Path, typer.Option(help="folder of the SDXL VAE")],
    clips: Annotated[Path, typer.Option(help="folder that prepare wrote")] = Path("work/clips"),
    out: Annotated[Path, typer.Option(help="folder for weights")] = Path("work/paper"),
    preset: Annotated[str, typer.Option(help="one with four latent channels: paper")] = "paper",
    steps: StepsOption = None,
) -> None:
    """Distil the autoencoder."""
    sizes = load_preset(preset)
    vae = load_sdxl(sdxl)
    channels, wanted = sizes["autoencoder"]["latent_channels"], vae.latent_channels
    if channels != wanted:
        raise UserError(f"--preset {preset}: its latents have {channels} channels and the SDXL VAE's {wanted}; preset paper has as many")
    every = load_clips(clips)
    wrong = [c for c in every if c.crops.shape[1] != sizes["crop_size"]]
    if wrong:
        raise UserError(f"--clips {clips}: {wrong[0].name} is {wrong[0].crops.shape[1]} px; preset {preset} needs {sizes['crop_size']}")
    taught, watched = [c for c in every if not c.held_out] or every, [c for c in every if c.held_out] or every
    held_out = pictures(watched, set_weights(watched), np.random.default_rng(1), WATCHED)
    loss = DistillationLoss(vae)

    def check(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, Autoencoder)
        image = on(module, held_out)
        theirs, ours = loss.vae.encode(image), module.encoder(image)
        return {
            "latent_error": float((ours - theirs).abs().mean() / theirs.abs().mean()),
            "own_psnr_db": psnr(module.decoder(ours), image),
            "decoder_psnr_db": psnr(module.decoder(theirs), image),
            "vae_psnr_db": psnr(loss.vae.decoder(theirs), image),
        }

    training = sizes["training"]
    draw = partial(pictures, taught, set_weights(taught), count=training["batch"])
    schedule = Schedule(steps=steps or training["steps"]["autoencoder"], rate=5e-4)
    train("autoencoder", Autoencoder(**sizes["autoencoder"]), draw, loss, schedule, out, check=check)


if __name__ == "__main__":
    command(main)
