"""Stage 6 of the recipe: the lips encoder, distilled from the teacher onto the whole, unaligned face (FlashLips, section 3.3).

    python -m flashlips_edge.training.lips_encoder --latents work/latents --weights work/nano

It also writes lips.json: the direction along which mouths open, and a closed mouth.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.files import write_bytes
from flashlips_edge.models.lips import LipsEncoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.checkpoint import load_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import EditorTask
from flashlips_edge.training.loop import Losses, Schedule, train
from flashlips_edge.training.pairs import Person, load_people, look, person_weights

BATCH = 48
CLOSED_JAW = 0.02  # of the synthetic head's true opening


def views(people: list[Person], weights: np.ndarray, generator: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """lower [B, 3, S-56, S] and face [B, 3, 96, 96] in [0, 1], and the true opening [B] (NaN for real people)."""
    lower, face, true = [], [], []
    for index in generator.choice(len(people), count, p=weights):
        person = people[index]
        t = int(generator.integers(len(person["latents"])))
        lower.append(person["lower"][t])
        face.append(person["face"][t])
        true.append(person.parameters[t, 0] if person.parameters is not None else np.nan)
    pictures = (torch.from_numpy(np.stack(x).transpose(0, 3, 1, 2).copy()).float() / 255 for x in (lower, face))
    first, second = pictures
    return first, second, torch.tensor(np.float32(true))


@torch.no_grad()
def constants(task: EditorTask, student: nn.Module, people: list[Person]) -> dict[str, list[float]]:
    """The opening direction (ridge regression of the true opening on the student's lips) and the mean closed mouth, both from the
    synthetic head, whose lips are known."""
    synthetic = [p for p in people if p.parameters is not None]
    _, face, true = views(synthetic, np.full(len(synthetic), 1 / len(synthetic)), np.random.default_rng(3), 1500)
    lips = torch.cat([student(part) for part in face.split(100)]).float().numpy().astype(np.float64)
    opening = true.numpy().astype(np.float64)
    centred = lips - lips.mean(0)
    direction = np.linalg.solve(centred.T @ centred + 1e-2 * len(lips) * np.eye(lips.shape[1]), centred.T @ (opening - opening.mean()))
    closed = lips[opening < CLOSED_JAW].mean(0)
    return {"opening": [round(float(v), 6) for v in direction], "closed": [round(float(v), 6) for v in closed]}


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with the editor's weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: Annotated[int, typer.Option(help="optimiser steps")] = 2500,
) -> None:
    """Distil the lips encoder."""
    sizes = load_preset(preset)
    task = EditorTask(sizes)
    load_weights(weights / "editor_task.safetensors", task)
    task.eval().requires_grad_(False)
    people, held_out = load_people(latents)
    chances = person_weights(people)
    plain = np.random.default_rng(0)
    test = views(held_out, person_weights(held_out), np.random.default_rng(4), 96)

    def teach(lower: Tensor, face: Tensor) -> Tensor:
        with torch.no_grad():
            return task.teacher(*look(lower, face, plain, 0.0)).float()

    def one(module: nn.Module, generator: np.random.Generator) -> Losses:
        lower, face, _ = views(people, chances, generator, BATCH)
        jittered, _ = look(lower, face, generator, 1.3)
        return {"lips": nn.functional.smooth_l1_loss(module(jittered).float(), teach(lower, face), beta=0.1)}

    def check(module: nn.Module) -> dict[str, float]:
        lips, truth = module(test[1]).float(), teach(test[0], test[1])
        spread = (truth - truth.mean(0)).square().mean()
        return {"explained": float(1 - (lips - truth).square().mean() / spread)}

    student = train("lips_encoder", LipsEncoder(**sizes["lips"]), one, Schedule(steps=steps, rate=1.5e-3), weights, check=check)
    write_bytes(weights / "lips.json", json.dumps(constants(task, student.float(), people), indent=1).encode())


if __name__ == "__main__":
    command(main)
