"""Stage 1 of the recipe: the autoencoder, on random windows of the crops.

python -m flashlips_edge.training.autoencoder --clips work/clips --out work/nano
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.clips import Clip, load_clips, set_weights
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.loop import Losses, Schedule, on, train
from flashlips_edge.training.losses import psnr

WINDOW = 96  # px; a convolutional network needs no more
LEAST_BATCH = 16


def windows(clips: list[Clip], weights: np.ndarray, generator: np.random.Generator, count: int) -> Tensor:
    """Random windows [count, 3, 96, 96] in [0, 1], half of them around the mouth, with shuffled and stretched colours."""
    result = np.empty((count, WINDOW, WINDOW, 3), np.float32)
    for i, index in enumerate(generator.choice(len(clips), count, p=weights)):
        crops = clips[index].crops
        room = crops.shape[1] - WINDOW
        top = generator.integers(room // 2, room + 1) if generator.random() < 0.5 else generator.integers(0, room + 1)
        left = generator.integers(0, room + 1)
        window = crops[generator.integers(len(crops)), top : top + WINDOW, left : left + WINDOW] / np.float32(255)
        if generator.random() < 0.5:
            window = window[:, ::-1]
        if generator.random() < 0.3:
            window = window[:, :, generator.permutation(3)]
        if generator.random() < 0.5:
            window = window ** generator.uniform(0.7, 1.4) * generator.uniform(0.7, 1.0, 3).astype(np.float32)
        result[i] = window
    return torch.from_numpy(result).permute(0, 3, 1, 2)


def loss(module: nn.Module, image: Tensor) -> Losses:
    """L1 + 2 MSE."""
    difference = module(image) - image
    return {"l1": difference.abs().mean(), "mse": 2 * difference.square().mean()}


def main(
    clips: Annotated[Path, typer.Option(help="folder that prepare wrote")] = Path("work/clips"),
    out: Annotated[Path, typer.Option(help="folder for weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: StepsOption = None,
) -> None:
    """Train the autoencoder."""
    sizes = load_preset(preset)
    batch = max(LEAST_BATCH, sizes["training"]["batch"])
    every = load_clips(clips)
    train_clips = [c for c in every if not c.held_out] or every
    weights = set_weights(train_clips)
    watched = [c for c in every if c.held_out] or every
    frames = np.concatenate([c.crops[len(c.crops) // 2][None] for c in watched[:: max(1, len(watched) // 32)]])
    held_out = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255

    def check(module: nn.Module) -> dict[str, float]:
        seen = on(module, held_out)
        return {"mouth_psnr_db": psnr(module(seen), seen)}

    def draw(generator: np.random.Generator) -> Tensor:
        return windows(train_clips, weights, generator, batch).contiguous(memory_format=torch.channels_last)

    model = Autoencoder(**sizes["autoencoder"])
    train("autoencoder", model, draw, loss, Schedule(steps=steps or sizes["training"]["steps"]["autoencoder"], rate=8e-4), out, check=check)


if __name__ == "__main__":
    command(main)
