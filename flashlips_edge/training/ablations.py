"""What the paper's choices are worth at our size: the same steps, data and seed for each variant, measured on held-out clips.

    python -m flashlips_edge.training.ablations --steps 3000 --out benchmarks/ablations.json

A variant that is in the file is not trained again; a killed one goes on.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes
from flashlips_edge.models.layers import LIPS
from flashlips_edge.models.lips import EXPRESSION, LipsEncoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.checkpoint import load_constants, load_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import MASKED_SHARE, Backbone, Checker, EditorLoss, EditorTask, load_decoder, start_from_teacher
from flashlips_edge.training.feature_files import feature_networks
from flashlips_edge.training.loop import Schedule, train
from flashlips_edge.training.losses import LossWeights, ReconstructionLoss
from flashlips_edge.training.pairs import Person, draw, load_people, person_weights, picture
from flashlips_edge.training.refinement import RefinementLoss, face_of

FRAMES = 24  # of each clip that the opening is followed on
CLIPS = 8  # of each set

Row = dict[str, float]
FIGURES = ("parameters", "mouth_hidden_db", "another_frame_db", "opening_r")  # of a row


@dataclass(frozen=True)
class Variant:
    """One editor: the first is what the others differ from in one thing."""

    name: str
    dimensions: int = LIPS
    references: int = 4
    backbone: Backbone = Backbone.UNET
    refined: bool = False


VARIANTS = (
    Variant("U-Net, 12-D lips, 4 references"),
    Variant("8-D lips", dimensions=EXPRESSION),
    Variant("1 reference", references=1),
    Variant("refined for half of the steps", refined=True),
    Variant("transformer", backbone=Backbone.TRANSFORMER),
)


class Opening:
    """How well the mouth follows: correlation of the opening asked for with the opening shown, within a clip, mean over clips.

    One frame of the clip is edited to the lips of others; a lips encoder that no variant trained reads both.
    """

    def __init__(self, people: list[Person], weights: Path, preset: dict[str, Any]) -> None:
        self.reader = LipsEncoder(**preset["lips"])
        load_weights(weights / "lips_encoder.safetensors", self.reader)
        self.reader.eval().requires_grad_(False)
        self.direction = torch.tensor(load_constants(weights)["opening"])
        sets = {name: [p for p in people if p.set_name == name] for name in sorted({p.set_name for p in people})}
        self.people = [p for chosen in sets.values() for p in chosen[:: -(-len(chosen) // CLIPS)] if len(p) > FRAMES]

    def __call__(self, task: EditorTask, loss: EditorLoss, references: int) -> float:
        return float(np.mean([self.follow(task, loss, references, person) for person in self.people]))

    def follow(self, task: EditorTask, loss: EditorLoss, references: int, person: Person) -> float:
        """The correlation on one clip; 0 where nothing moves."""
        frames = np.linspace(1, len(person) - 1, FRAMES).astype(int)
        lower, face = (picture(torch.from_numpy(person[name][frames])) for name in ("lower", "face"))
        start = torch.from_numpy(person["latents"][0].astype(np.float32)).expand(FRAMES, -1, -1, -1)
        chosen = frames[np.linspace(0, FRAMES - 1, references).astype(int)]
        seen = torch.from_numpy(person["latents"][chosen].astype(np.float32)).flatten(0, 1).expand(FRAMES, -1, -1, -1)
        first = picture(torch.from_numpy(person["face"][[0]])).expand(FRAMES, -1, -1, -1)
        edited = task.editor(start, seen, loss.lips_of(task.teacher, lower, face, 0.0))
        shown = face_of(loss.reconstruction.decoder(edited).float(), first)
        openings = torch.stack([self.read(shown), self.read(face)])
        return float(torch.corrcoef(openings).nan_to_num()[0, 1])

    def read(self, face: Tensor) -> Tensor:
        """Opening [B] of faces [B, 3, E, E]."""
        return self.reader(face).float() @ self.direction


def learn(
    variant: Variant, preset: dict[str, Any], weights: Path, people: list[Person], steps: int, folder: Path
) -> tuple[EditorTask, EditorLoss]:
    """Train one variant; its editor and the loss that knows how it takes its lips."""
    torch.manual_seed(0)
    reconstruction = ReconstructionLoss(LossWeights(**preset["loss"]), load_decoder(preset, weights), *feature_networks(None, None))
    loss = EditorLoss(reconstruction, variant.dimensions)
    task = EditorTask(preset, variant.backbone)
    start_from_teacher(task, preset, weights)
    training = preset["training"]
    batch = partial(draw, people, person_weights(people), count=training["batch"], masked_share=MASKED_SHARE, references=variant.references)
    first = steps // 2 if variant.refined else steps

    def run(name: str, module: EditorTask, terms: nn.Module, count: int, rate: float) -> EditorTask:
        schedule = Schedule(steps=count, rate=rate, final_rate=training["final_rate"], warm_up=min(200, count // 10))
        average = train(name, module, batch, terms, schedule, folder)
        assert isinstance(average, EditorTask)
        return average

    average = run("editor", task, loss, first, training["editor_rate"])
    if variant.refined:
        refined = copy.deepcopy(average).requires_grad_(True)
        refined.teacher.requires_grad_(False)
        refined.probe.requires_grad_(False)
        average = run("refinement", refined, RefinementLoss(loss, average), steps - first, training["refinement_rate"])
    return average, loss


@torch.no_grad()
def measure(variant: Variant, task: EditorTask, loss: EditorLoss, opening: Opening, held_out: list[Person]) -> Row:
    """Mean over the sets: dB in the mouth box with the mouth hidden and from another frame; correlation of the opening."""
    found = Checker(held_out, loss, variant.references)(task)
    means = {kind: float(np.mean([v for k, v in found.items() if k.endswith(kind)])) for kind in ("_masked", "_pair")}
    return {
        "parameters": sum(p.numel() for p in task.editor.parameters()),
        "mouth_hidden_db": round(means["_masked"], 3),
        "another_frame_db": round(means["_pair"], 3),
        "opening_r": round(opening(task, loss, variant.references), 4),
    }


def kept(out: Path, preset: str, steps: int) -> dict[str, Any] | None:
    """What an earlier run wrote; None where there is no file. Raises UserError for a file of anything else."""
    if not out.exists():
        return None
    try:
        found = json.loads(out.read_text(encoding="utf-8"))
        given = found["preset"], found["steps"]
        ours = all(isinstance(row[figure], (int, float)) for row in found["rows"].values() for figure in FIGURES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours = False
    if not ours:
        raise UserError(f"--out {out}: is there and holds no figures of ablations, or is damaged; name another file")
    if given != (preset, steps):
        raise UserError(f"--out {out}: holds {given[1]} steps of preset {given[0]}; name another file for {steps} of {preset}")
    return found


def main(
    steps: Annotated[int, typer.Option(help="optimiser steps of each variant")] = 3000,
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    weights: Annotated[Path, typer.Option(help="folder with autoencoder, lips teacher and lips encoder")] = Path("work/nano"),
    work: Annotated[Path, typer.Option(help="folder for checkpoints")] = Path("work/ablations"),
    out: Annotated[Path, typer.Option(help="the figures")] = Path("benchmarks/ablations.json"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
) -> None:
    """Train and measure each variant, and keep the figures as they come."""
    result = kept(out, preset, steps)
    people, held_out = load_people(latents)
    sizes = load_preset(preset)
    opening = Opening(held_out, weights, sizes)
    result = result or {"preset": preset, "steps": steps, "held_out": len(held_out), "rows": {}}
    rows: dict[str, Row] = result["rows"]
    for variant in VARIANTS:
        if variant.name not in rows:
            own = copy.deepcopy(sizes)
            own[variant.backbone.value]["references"] = variant.references
            folder = work / f"{preset}-{steps}" / variant.name.replace(" ", "-").replace(",", "")
            task, loss = learn(variant, own, weights, people, steps, folder)
            rows[variant.name] = measure(variant, task.cpu(), loss.cpu(), opening, held_out)
            write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())
        row = rows[variant.name]
        print(
            f"{variant.name:<32} {row['parameters'] / 1e6:6.2f}M  mouth hidden {row['mouth_hidden_db']:6.2f} dB  "
            f"another frame {row['another_frame_db']:6.2f} dB  opening r {row['opening_r']:5.2f}"
        )


if __name__ == "__main__":
    command(main)
