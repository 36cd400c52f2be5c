"""Stage 5 of the recipe: mask-free self-refinement (FlashLips, section 3.2).

    python -m flashlips_edge.training.refinement --latents work/latents --weights work/nano

In one step of four the trained editor, frozen, gives pictures of the same person with other lips; a copy of it learns to go from
the altered picture to the true one and from the true one to the altered one, and the lips read from the result must be the lips
that were asked for, also lips of other people (the latter beyond the paper). The other steps are the editor's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.checkpoint import load_weights, save_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import (
    BATCH,
    LATENT_WEIGHT,
    LIPS_NOISE,
    EditorTask,
    checker,
    decode_lower,
    load_decoder,
    loss,
    pixel_losses,
)
from flashlips_edge.training.loop import Losses, Schedule, train
from flashlips_edge.training.pairs import Person, draw, load_people, look, person_weights

SET_WEIGHT = {"grid_s1": 0.2, "grid_multi": 0.34, "crema_d": 0.14, "synthetic": 0.22, "demo": 0.1}  # now the others, more
REFINE_SHARE = 0.25  # of the steps go there and back; the others take real and synthetic pairs, which teach more a second
MASKED_SHARE = 0.2  # keeps the masked ability, by which the editor is also measured
ALTERED_SHARE = 0.6  # of the unmasked inputs come from the frozen editor, the rest are real frames
OBEY_WEIGHT = 0.15  # lips read from the result against lips asked for
SYMMETRIC_WEIGHT = 0.3  # true -> altered


def refine(
    task: EditorTask,
    frozen: EditorTask,
    decoder: nn.Module,
    people: list[Person],
    chances: np.ndarray,
    generator: np.random.Generator,
) -> Losses:
    """One batch: altered -> true, true -> altered, and obedience to lips from anybody."""
    batch = draw(people, chances, generator, BATCH, MASKED_SHARE)
    with torch.no_grad():
        lips = frozen.teacher(*look(batch.lower, batch.face, generator)).float()
        others = lips[torch.from_numpy(generator.permutation(len(lips)))]
        mix = torch.from_numpy(generator.uniform(0.3, 1.0, (len(lips), 1)).astype(np.float32))
        other = lips + mix * (others - lips) + LIPS_NOISE * torch.randn_like(lips)
        altered = frozen.editor(batch.target, batch.references, other).float()
        use = (1 - batch.hidden) * torch.from_numpy((generator.random(len(lips)) < ALTERED_SHARE).astype(np.float32))
        use = use[:, None, None, None]
        start = use * altered + (1 - use) * batch.latent
    edited = task.editor(start, batch.references, lips + LIPS_NOISE * torch.randn_like(lips))
    image = decode_lower(decoder, edited)
    half = slice(0, BATCH // 2)  # the way there costs as much as the way back and teaches less
    back = task.editor(batch.target[half], batch.references[half], other[half])
    there = decode_lower(decoder, back)
    read = frozen.teacher(*look(there.float(), face_of(there, batch.face[half]), generator, 0.5)).float()
    return {
        "latent": LATENT_WEIGHT * (edited - batch.target).abs().mean(),
        **pixel_losses(image, batch.lower, batch.other),
        "symmetric": SYMMETRIC_WEIGHT * (back - altered[half]).abs().mean(),
        "obey": OBEY_WEIGHT * (read - other[half]).abs().mean(),
    }


def face_of(lower: Tensor, face: Tensor) -> Tensor:
    """The teacher's view [B, 3, 96, 96] of a picture whose lower part was edited."""
    rows = round(lower.shape[2] * face.shape[2] / lower.shape[3])  # of 96
    small = nn.functional.interpolate(lower.float(), (rows, face.shape[3]), mode="bilinear", antialias=True, align_corners=False)
    return torch.cat([face[:, :, : face.shape[2] - rows], small], 2)


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with the editor's weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: Annotated[int, typer.Option(help="optimiser steps")] = 6000,
) -> None:
    """Fine-tune the editor without a mask."""
    sizes = load_preset(preset)
    decoder = load_decoder(sizes, weights)
    people, held_out = load_people(latents)
    frozen, task = EditorTask(sizes), EditorTask(sizes)
    for model in (frozen, task):
        load_weights(weights / "editor_task.safetensors", model)
    frozen.eval().requires_grad_(False)
    task.teacher.requires_grad_(False)
    task.probe.requires_grad_(False)
    chances = person_weights(people, SET_WEIGHT)

    def one(module: nn.Module, generator: np.random.Generator) -> Losses:
        assert isinstance(module, EditorTask)
        if generator.random() < REFINE_SHARE:
            return refine(module, frozen, decoder, people, chances, generator)
        return loss(module, decoder, draw(people, chances, generator, BATCH, MASKED_SHARE), generator)

    schedule = Schedule(steps=steps, rate=6e-4, warm_up=50)
    average = train("refinement", task, one, schedule, weights, check=checker(held_out, decoder))
    assert isinstance(average, EditorTask)
    save_weights(weights / "editor.safetensors", average.editor)


if __name__ == "__main__":
    command(main)
