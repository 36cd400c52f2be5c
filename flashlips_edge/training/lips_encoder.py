"""Stage 7 of the recipe: the lips encoder, distilled from the teacher onto the whole, unaligned face (FlashLips, section 3.3).

    python -m flashlips_edge.training.lips_encoder --latents work/latents --weights work/nano

It also writes lips.json: the direction along which mouths open, a closed mouth, and how far mouths open in speech.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes
from flashlips_edge.models.lips import LipsEncoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.talking.identity import evenly
from flashlips_edge.talking.mouth import closed_and_wide
from flashlips_edge.training.checkpoint import load_weights
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.editor import Backbone, BackboneOption, EditorTask
from flashlips_edge.training.expression import ExpressionFile, load_expression
from flashlips_edge.training.loop import Losses, Schedule, on, train
from flashlips_edge.training.order import check_backbone, trained_on
from flashlips_edge.training.pairs import Person, load_people, person_weights, picture
from flashlips_edge.training.views import look

BATCH = 48
CLOSED_JAW = 0.02  # of the synthetic head's true opening
MOST_PEOPLE, MOST_FRAMES = 24, 60  # of a set, and of each of them, evenly: whose speech is looked at
RIDGE = 0.1  # reads unseen people best, and leans towards where lips vary, so that going that way opens a mouth


class Views(NamedTuple):
    """Frames of single people as they are stored, as the teacher sees them, and the synthetic head's true opening."""

    lower_pictures: Tensor  # uint8 [B, H, S, 3]
    face_pictures: Tensor  # uint8 [B, E, E, 3]
    level_lower_pictures: Tensor  # uint8 [B, H, S, 3]: before the head was turned
    level_face_pictures: Tensor  # uint8 [B, E, E, 3]
    opening: Tensor  # float32 [B], NaN for real people


def views(people: list[Person], weights: np.ndarray, generator: np.random.Generator, count: int) -> Views:
    """Frames of people drawn by ``weights``."""
    rows: list[tuple[np.ndarray, ...]] = []
    for index in generator.choice(len(people), count, p=weights):
        person = people[index]
        t = int(generator.integers(len(person)))
        rows.append((person["lower"][t], person["face"][t], *person.level(t), person.parameters_of(t)[0]))
    return Views(*(torch.from_numpy(np.stack(column)) for column in zip(*rows)))


class Distillation(nn.Module):
    """Smooth L1 of the student's lips on a disguised face, turned perhaps, against the teacher's on the plain one that looks ahead."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher.eval().requires_grad_(False)

    def wanted(self, batch: Views) -> Tensor:
        """The teacher's lips [B, 12]."""
        with torch.no_grad():
            lower, face = picture(batch.level_lower_pictures), picture(batch.level_face_pictures)
            return self.teacher(*look(lower, face, 0.0, self.teacher.face_size)).float()

    def forward(self, student: nn.Module, batch: Views) -> Losses:
        face = picture(batch.face_pictures)
        disguised, _ = look(picture(batch.lower_pictures), face, 1.3, face.shape[-1])
        return {"lips": nn.functional.smooth_l1_loss(student(disguised).float(), self.wanted(batch), beta=0.1)}


@torch.no_grad()
def constants(student: nn.Module, people: list[Person]) -> dict[str, list[float]]:
    """The opening direction (ridge regression of the true opening on the student's lips) and the mean closed mouth, both from the
    synthetic head, whose lips are known."""
    synthetic = [p for p in people if p.parameters is not None]
    seen = views(synthetic, np.full(len(synthetic), 1 / len(synthetic)), np.random.default_rng(3), 1500)
    lips = torch.cat([student(picture(on(student, part))) for part in seen.face_pictures.split(100)]).double().cpu().numpy()
    opening = seen.opening.numpy().astype(np.float64)
    centred = lips - lips.mean(0)
    direction = np.linalg.solve(centred.T @ centred + RIDGE * len(lips) * np.eye(lips.shape[1]), centred.T @ (opening - opening.mean()))
    closed = lips[opening < CLOSED_JAW].mean(0)
    found = {"opening": direction, "closed": closed, "spoken": spoken(student, people, direction)}
    return {name: [round(float(v), 6) for v in vector] for name, vector in found.items()}


@torch.no_grad()
def spoken(student: nn.Module, people: list[Person], direction: np.ndarray) -> np.ndarray:
    """From closed to open lips [12] in speech, as opened along ``direction``: the mean of the sets' means over people; of real ones,
    where there are any, as they are and not as another person."""
    own = [p for p in people if p.folder.name.endswith(".0")] or people
    real = [p for p in own if p.parameters is None] or own
    ways: dict[str, list[np.ndarray]] = {}
    for person in (p for name in sorted({q.set_name for q in real}) for p in evenly([q for q in real if q.set_name == name], MOST_PEOPLE)):
        faces = picture(torch.from_numpy(np.stack(evenly(person["face"], MOST_FRAMES))))
        lips = student(on(student, faces)).double().cpu().numpy()
        closed, wide = closed_and_wide(lips, lips @ direction)
        ways.setdefault(person.set_name, []).append(wide - closed)
    return np.mean([np.mean(of_set, axis=0) for of_set in ways.values()], axis=0)


def check_known(people: list[Person], latents: Path) -> None:
    """Raises UserError where nobody's lips are known, so that `constants` could say nothing."""
    if not any(p.parameters is not None for p in people):
        raise UserError(f"--latents {latents}: no person of the synthetic head, whose lips are known; run training.synthetic_clips first")


def write_constants(weights: Path, student: nn.Module, people: list[Person]) -> None:
    """lips.json of the folder ``weights``."""
    write_bytes(weights / "lips.json", json.dumps(constants(student, people), indent=1).encode())


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with the editor's weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: StepsOption = None,
    backbone: BackboneOption = Backbone.UNET,
    expression: ExpressionFile = None,
) -> None:
    """Distil the lips encoder."""
    check_backbone(weights, backbone)
    sizes, given = load_preset(preset), load_expression(expression, weights)
    if trained_on("lips_encoder", weights, backbone):
        return
    task = EditorTask(sizes, backbone, given)
    load_weights(weights / f"{backbone.value}_task.safetensors", task)
    people, held_out = load_people(latents)
    check_known(people, latents)
    loss = Distillation(task.teacher)
    test = views(held_out, person_weights(held_out), np.random.default_rng(4), 96)

    def check(module: nn.Module) -> dict[str, float]:
        batch = on(module, test)
        lips, wanted = module(picture(batch.face_pictures)).float(), loss.wanted(batch)
        spread = (wanted - wanted.mean(0)).square().mean()
        return {"explained": float(1 - (lips - wanted).square().mean() / spread)}

    batch = partial(views, people, person_weights(people), count=BATCH)
    schedule = Schedule(steps=steps or sizes["training"]["steps"]["lips_encoder"], rate=1.5e-3)
    student = train("lips_encoder", LipsEncoder(**sizes["lips"]), batch, loss, schedule, weights, check=check)
    write_constants(weights, student.float(), people)


if __name__ == "__main__":
    command(main)
