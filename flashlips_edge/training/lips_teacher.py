"""Stage 3 of the recipe: the lips teacher learns what a lips vector is before the editor listens to it.

    python -m flashlips_edge.training.lips_teacher --latents work/latents --weights work/nano

Started together with the editor, the teacher spends its 12 numbers on whose face it is (seen: within-clip deviation 0.2 of the total).
So first: the difference of two frames' lips vectors must tell, by one linear map for everybody, how the mouth's picture
changed; the synthetic head's true lips must be readable; a person's mean must be near nought. The paper starts from a
pretrained expression encoder instead (FlashLips, section 3.3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.models.editor import LIPS
from flashlips_edge.models.lips import LipsTeacher
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.command import command
from flashlips_edge.training.latents import LOWER
from flashlips_edge.training.loop import Losses, Schedule, train
from flashlips_edge.training.pairs import PARAMETERS, Person, load_people, look, person_weights

PAIRS = 28
THUMBNAIL = (12, 16)
MOTION_WEIGHT, TRUE_WEIGHT, MEAN_WEIGHT, UNIT_WEIGHT = 10.0, 10.0, 0.05, 0.05
SYNTHETIC_SHARE = 0.4  # of the people drawn: their lips are known


class TeacherTask(nn.Module):
    """The teacher, the linear map to mouth pictures' differences, and the probe for true lips."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.teacher = LipsTeacher(width)
        self.motion = nn.Linear(LIPS, THUMBNAIL[0] * THUMBNAIL[1], bias=False)
        self.probe = nn.Linear(LIPS, PARAMETERS)


def frames(people: list[Person], weights: np.ndarray, generator: np.random.Generator, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two frames of each of ``pairs`` people, one after the other: lower [2P, 3, S-56, S], face [2P, 3, 96, 96], parameters [2P, 6]."""
    lower, face, parameters = [], [], []
    for index in generator.choice(len(people), pairs, p=weights):
        person = people[index]
        t = int(generator.integers(len(person["latents"])))
        for i in (t, int(generator.choice(person.same_pose[t]))):
            lower.append(person["lower"][i])
            face.append(person["face"][i])
            parameters.append(person.parameters[i] if person.parameters is not None else np.full(PARAMETERS, np.nan, np.float32))
    pictures = (torch.from_numpy(np.stack(x).transpose(0, 3, 1, 2).copy()).float() / 255 for x in (lower, face))
    first, second = pictures
    return first, second, torch.from_numpy(np.float32(parameters))


def thumbnails(lower: Tensor) -> Tensor:
    """Small grey mouths [B, 12 * 16], each divided by its own deviation."""
    mouth = lower[:, :, 92 - LOWER : 148 - LOWER, 45:115].mean(1, keepdim=True)
    small = F.interpolate(mouth, THUMBNAIL, mode="area").flatten(1)
    return small / (small.std(1, keepdim=True) + 0.05)


def losses(
    task: TeacherTask, lower: Tensor, face: Tensor, parameters: Tensor, generator: np.random.Generator, strength: float = 1.0
) -> Losses:
    lips = task.teacher(*look(lower, face, generator, strength)).float()
    noisy = lips + 0.1 * torch.randn_like(lips)
    change = task.motion(noisy[0::2] - noisy[1::2]).float() - (thumbnails(lower[0::2]) - thumbnails(lower[1::2]))
    known = ~parameters[:, 0].isnan()
    true = (task.probe(noisy).float() - parameters.nan_to_num())[known].square().sum() / (len(known) * PARAMETERS)
    within = (lips[0::2] - lips[1::2]).square().mean(0) / 2  # [12]
    return {
        "motion": MOTION_WEIGHT * change.square().mean(),
        "true": TRUE_WEIGHT * true,
        "mean": MEAN_WEIGHT * ((lips[0::2] + lips[1::2]) / 2).square().mean(),
        "unit": UNIT_WEIGHT * (within.clamp_min(1e-4).log() + 0.7).square().mean(),  # within a person's speech, deviation about 0.7
    }


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder for the weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: Annotated[int, typer.Option(help="optimiser steps")] = 2000,
) -> None:
    """Train the lips teacher by itself."""
    people, held_out = load_people(latents)
    chances = person_weights(people)
    known = np.array([p.parameters is not None for p in people])
    chances = np.where(known, SYNTHETIC_SHARE * chances / chances[known].sum(), (1 - SYNTHETIC_SHARE) * chances / chances[~known].sum())
    lower, face, parameters = frames(held_out, person_weights(held_out), np.random.default_rng(7), 96)

    def one(module: nn.Module, generator: np.random.Generator) -> Losses:
        assert isinstance(module, TeacherTask)
        return losses(module, *frames(people, chances, generator, PAIRS), generator)

    def check(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, TeacherTask)
        lips = module.teacher(*look(lower, face, np.random.default_rng(8), 0.0)).float()
        change = thumbnails(lower[0::2]) - thumbnails(lower[1::2])
        known = ~parameters[:, 0].isnan()
        true = parameters[known]
        error = (module.probe(lips[known]).float() - true).square().mean(0) / true.var(0)
        return {
            "motion_explained": float(
                1 - (module.motion(lips[0::2] - lips[1::2]).float() - change).square().mean() / change.square().mean()
            ),
            "jaw_explained": float(1 - error[0]),
            "width_explained": float(1 - error[1]),
            "jaw_change_r": float(
                np.corrcoef(*(x[0::2, 0] - x[1::2, 0] for x in (module.probe(lips[known]).float().numpy(), true.numpy())))[0, 1]
            ),
            "within_share": float((lips[0::2] - lips[1::2]).square().mean() / 2 / lips.var(0).mean()),
        }

    width = load_preset(preset)["lips"]["width"]
    train("teacher_task", TeacherTask(width), one, Schedule(steps=steps, rate=6e-4, warm_up=100, average_decay=0.99), weights, check=check)


if __name__ == "__main__":
    command(main)
