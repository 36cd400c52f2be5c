"""Stage 3 of the recipe: the lips teacher learns what a lips vector is before the editor listens to it.

    python -m flashlips_edge.training.lips_teacher --latents work/latents --weights work/nano

Started together with the editor, the teacher spends its 12 numbers on whose face it is (seen: within-clip deviation 0.2 of the total).
So first: the difference of two frames' lips vectors must tell, by one linear map for everybody, how the mouth's picture
changed; the synthetic head's true lips must be readable; a person's mean must be near nought. The paper starts from a
pretrained expression encoder (FlashLips, section 3.3): --expression names one, and its projector and the mouth's encoder learn.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.models.layers import LIPS
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.boxes import Box
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.expression import ExpressionFile, ExpressionGraph, load_expression, make_teacher
from flashlips_edge.training.loop import Losses, Schedule, on, train
from flashlips_edge.training.pairs import PARAMETERS, Person, load_people, person_weights, picture
from flashlips_edge.training.views import look

PAIRS = 28
THUMBNAIL = (12, 16)
SEEN = Box(92 / 160, 148 / 160, 45 / 160, 115 / 160)  # of the mouth, in a thumbnail
MOTION_WEIGHT, TRUE_WEIGHT, MEAN_WEIGHT, UNIT_WEIGHT = 10.0, 10.0, 0.05, 0.05
SYNTHETIC_SHARE = 0.4  # of the people drawn: their lips are known


class TeacherTask(nn.Module):
    """The teacher, the linear map to mouth pictures' differences, and the probe for true lips."""

    def __init__(self, preset: dict[str, Any], expression: ExpressionGraph | None = None) -> None:
        super().__init__()
        self.teacher = make_teacher(preset, expression)
        self.motion = nn.Linear(LIPS, THUMBNAIL[0] * THUMBNAIL[1], bias=False)
        self.probe = nn.Linear(LIPS, PARAMETERS)


class Pairs(NamedTuple):
    """Two frames of each of P people, one after the other, as they are stored: pictures in bytes."""

    lower_pictures: Tensor  # uint8 [2P, H, S, 3]
    face_pictures: Tensor  # uint8 [2P, E, E, 3]
    parameters: Tensor  # float32 [2P, 6], NaN where unknown

    @property
    def lower(self) -> Tensor:
        """[2P, 3, H, S] in [0, 1]."""
        return picture(self.lower_pictures)

    @property
    def face(self) -> Tensor:
        """[2P, 3, E, E] in [0, 1]."""
        return picture(self.face_pictures)


def frames(people: list[Person], weights: np.ndarray, generator: np.random.Generator, pairs: int) -> Pairs:
    """Two frames of the same head pose of each of ``pairs`` people."""
    lower, face, parameters = [], [], []
    for index in generator.choice(len(people), pairs, p=weights):
        person = people[index]
        t = int(generator.integers(len(person)))
        for i in (t, int(generator.choice(person.same_pose(t)))):
            lower.append(person["lower"][i])
            face.append(person["face"][i])
            parameters.append(person.parameters_of(i))
    return Pairs(*(torch.from_numpy(np.stack(column)) for column in (lower, face, parameters)))


def thumbnails(lower: Tensor) -> Tensor:
    """Small grey mouths [B, 12 * 16], each divided by its own deviation."""
    mouth = SEEN.cut(lower).mean(1, keepdim=True)
    small = F.interpolate(mouth, THUMBNAIL, mode="area").flatten(1)
    return small / (small.std(1, keepdim=True) + 0.05)


def loss(task: TeacherTask, batch: Pairs) -> Losses:
    """The change of the mouth's picture, the true lips, a person's mean near nought, and a unit of length."""
    lower, parameters = batch.lower, batch.parameters
    lips = task.teacher(*look(lower, batch.face, face_size=task.teacher.face_size)).float()
    noisy = lips + 0.1 * torch.randn_like(lips)
    change = task.motion(noisy[0::2] - noisy[1::2]).float() - (thumbnails(lower[0::2]) - thumbnails(lower[1::2]))
    known = ~parameters[:, :1].isnan()
    wrong = torch.where(known, task.probe(noisy).float() - parameters.nan_to_num(), 0.0)
    within = (lips[0::2] - lips[1::2]).square().mean(0) / 2  # [12]
    return {
        "motion": MOTION_WEIGHT * change.square().mean(),
        "true": TRUE_WEIGHT * wrong.square().mean(),
        "mean": MEAN_WEIGHT * ((lips[0::2] + lips[1::2]) / 2).square().mean(),
        "unit": UNIT_WEIGHT * (within.clamp_min(1e-4).log() + 0.7).square().mean(),  # within a person's speech, deviation about 0.7
    }


def figures(task: TeacherTask, test: Pairs) -> dict[str, float]:
    """Shares of variance explained: the change of the mouth's picture, the true jaw and width; and how little is whose face it is."""
    lower, parameters = test.lower, test.parameters
    lips = task.teacher(*look(lower, test.face, 0.0, task.teacher.face_size)).float()
    change = thumbnails(lower[0::2]) - thumbnails(lower[1::2])
    missed = (task.motion(lips[0::2] - lips[1::2]).float() - change).square().mean()
    result = {
        "motion_explained": float(1 - missed / change.square().mean()),
        "within_share": float((lips[0::2] - lips[1::2]).square().mean() / 2 / lips.var(0).mean()),
    }
    known = ~parameters[:, 0].isnan()
    if known.any():
        read, true = task.probe(lips[known]).float(), parameters[known]
        error = (read - true).square().mean(0) / true.var(0)
        jaws = torch.stack([x[0::2, 0] - x[1::2, 0] for x in (read, true)])
        result |= {
            "jaw_explained": float(1 - error[0]),
            "width_explained": float(1 - error[1]),
            "jaw_change_r": float(torch.corrcoef(jaws)[0, 1]),
        }
    return result


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder for the weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: StepsOption = None,
    expression: ExpressionFile = None,
) -> None:
    """Train the lips teacher by itself."""
    sizes, given = load_preset(preset), load_expression(expression, weights)
    people, held_out = load_people(latents)
    chances = person_weights(people)
    known = np.array([p.parameters is not None for p in people])
    if known.any() and not known.all():
        chances = np.where(known, SYNTHETIC_SHARE / chances[known].sum(), (1 - SYNTHETIC_SHARE) / chances[~known].sum()) * chances
    test = frames(held_out, person_weights(held_out), np.random.default_rng(7), 96)

    def check(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, TeacherTask)
        return figures(module, on(module, test))

    task = TeacherTask(sizes, given)
    schedule = Schedule(steps=steps or sizes["training"]["steps"]["lips_teacher"], rate=6e-4, warm_up=100, average_decay=0.99)
    train("teacher_task", task, partial(frames, people, chances, pairs=PAIRS), loss, schedule, weights, check=check)  # type: ignore[arg-type]


if __name__ == "__main__":
    command(main)
