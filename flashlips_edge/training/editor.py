"""Stage 4 of the recipe: the editor together with the lips vector, half by masked reconstruction, half by real pairs.

    python -m flashlips_edge.training.editor --latents work/latents --weights work/nano

The paper trains by masked reconstruction alone and removes the mask by self-refinement afterwards (FlashLips, section 3.2). Half
of our inputs are already unmasked: another frame of the same clip with nearly the same head pose and other lips, which
grid-like footage and the synthetic head have in plenty.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.editor import LIPS, EditorUNet
from flashlips_edge.models.lips import LipsTeacher
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.checkpoint import load_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.latents import LOWER
from flashlips_edge.training.lips_teacher import TeacherTask
from flashlips_edge.training.loop import Losses, Schedule, train
from flashlips_edge.training.pairs import PARAMETERS, Batch, Person, draw, load_people, look, person_weights

BATCH = 16
MASKED_SHARE = 0.5
LIPS_NOISE = 0.1  # added to the lips vector in training, so that near vectors mean near lips
LATENT_WEIGHT, PIXEL_WEIGHT, LIPS_WEIGHT, EDGE_WEIGHT, TRUE_WEIGHT = 0.3, 1.0, 4.0, 1.0, 0.5
LIPS_BOX = (92, 152, 45, 115)  # top, bottom, left, right in a 160 px crop: lips and chin


class EditorTask(nn.Module):
    """What this stage trains: the editor, the lips teacher, and a linear probe for the synthetic head's true lips."""

    def __init__(self, preset: dict[str, Any]) -> None:
        super().__init__()
        self.editor = EditorUNet(**preset["editor"])
        self.teacher = LipsTeacher(**preset["lips"])
        self.probe = nn.Linear(LIPS, PARAMETERS)


def load_decoder(preset: dict[str, Any], weights: Path) -> nn.Module:
    """The frozen latent decoder."""
    model = Autoencoder(**preset["autoencoder"])
    load_weights(weights / "autoencoder.safetensors", model)
    return model.decoder.train().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def decode_lower(decoder: nn.Module, latent: Tensor) -> Tensor:
    """Pixels [B, 3, S-56, S] of the latent rows that the editor's losses see."""
    return decoder(latent[:, :, LOWER // 8 :].contiguous(memory_format=torch.channels_last))


def moving(truth: Tensor, other: Tensor) -> Tensor:
    """Weight [B, 1, h, w] of the pixels that differ between two mouths of one head pose: about 0.5 on skin, 2 between the lips."""
    change = (truth - other).abs().mean(1, keepdim=True)
    return 0.4 + 6 * nn.functional.avg_pool2d(change, 5, stride=1, padding=2)


def pixel_losses(image: Tensor, truth: Tensor, other: Tensor) -> Losses:
    """L1 over the lower face, L1 over the lips, most where they move, L1 of the lips' gradients: the terms of eq. 9 that need no
    other network."""
    top, bottom, left, right = LIPS_BOX
    lips = (slice(None), slice(None), slice(top - LOWER, bottom - LOWER), slice(left, right))
    difference = (image - truth)[lips]
    edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return {
        "pixel": PIXEL_WEIGHT * (image - truth).abs().mean(),
        "lips": LIPS_WEIGHT * (difference.abs() * moving(truth, other)[lips]).mean(),
        "edge": EDGE_WEIGHT * edges,
    }


def loss(task: EditorTask, decoder: nn.Module, batch: Batch, generator: np.random.Generator) -> Losses:
    """Latent L1 + pixel L1 through the frozen decoder, mouth weighted (eq. 9 without the VGG terms), and the lips vector's own."""
    lips = task.teacher(*look(batch.lower, batch.face, generator)).float()
    noisy = lips + LIPS_NOISE * torch.randn_like(lips)
    edited = task.editor(batch.latent, batch.references, noisy)
    known = ~batch.parameters[:, 0].isnan()
    true = (task.probe(noisy) - batch.parameters.nan_to_num())[known].square().sum() / max(1, len(known) * PARAMETERS)
    return {
        "latent": LATENT_WEIGHT * (edited - batch.target).abs().mean(),
        **pixel_losses(decode_lower(decoder, edited), batch.lower, batch.other),
        "true": TRUE_WEIGHT * true,
    }


def psnr(image: Tensor, truth: Tensor) -> float:
    """Mean PSNR in dB over the mouth box (rows 92-140, columns 45-115 of a 160 px crop), each picture alone."""
    box = (slice(None), slice(None), slice(92 - LOWER, 140 - LOWER), slice(45, 115))
    error = (image.float().clamp(0, 1) - truth)[box].square().mean((1, 2, 3))
    return float((-10 * error.clamp_min(1e-8).log10()).mean())


def checker(people: list[Person], decoder: nn.Module) -> Any:
    """PSNR on held-out clips of each set, masked and unmasked, beside the input decoded as it is."""
    generator = np.random.default_rng(1)
    batches = {}
    for name in sorted({p.set_name for p in people}):
        chosen = [p for p in people if p.set_name == name]
        weights = np.full(len(chosen), 1 / len(chosen))
        for kind, share in (("masked", 1.0), ("pair", 0.0)):
            batches[f"{name}_{kind}"] = draw(chosen, weights, generator, 24, share)

    def check(task: nn.Module) -> dict[str, float]:
        assert isinstance(task, EditorTask)
        result = {}
        for name, batch in batches.items():
            lips = task.teacher(*look(batch.lower, batch.face, np.random.default_rng(2), 0.0)).float()
            result[name] = psnr(decode_lower(decoder, task.editor(batch.latent, batch.references, lips)), batch.lower)
            if name.endswith("pair"):
                result[f"{name}_copy"] = psnr(decode_lower(decoder, batch.latent), batch.lower)
        return result

    return check


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with the autoencoder; the editor is written there")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: Annotated[int, typer.Option(help="optimiser steps")] = 8000,
) -> None:
    """Train the editor and the lips teacher."""
    sizes = load_preset(preset)
    decoder = load_decoder(sizes, weights)
    people, held_out = load_people(latents)
    chances = person_weights(people)

    def one(module: nn.Module, generator: np.random.Generator) -> Losses:
        assert isinstance(module, EditorTask)
        return loss(module, decoder, draw(people, chances, generator, BATCH, MASKED_SHARE), generator)

    task = EditorTask(sizes)
    start = TeacherTask(**sizes["lips"])
    load_weights(weights / "teacher_task.safetensors", start)
    task.teacher.load_state_dict(start.teacher.state_dict())
    task.probe.load_state_dict(start.probe.state_dict())
    check = checker(held_out, decoder)
    train("editor_task", task, one, Schedule(steps=steps, rate=1e-3, warm_up=200), weights, check=check)


if __name__ == "__main__":
    command(main)
