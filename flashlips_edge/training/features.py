"""The feature network's recipe: it learns to tell the training people apart, by whole faces and by their lower parts.

    python -m flashlips_edge.training.features --latents work/latents --out work/features

Cosines with a margin (Wang et al., CosFace, 2018). A warped variant of a clip counts as a person of its own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.files import atomic_path
from flashlips_edge.models.features import EMBEDDING, WIDTHS, FeatureNetwork
from flashlips_edge.models.lips import FACE_SIZE
from flashlips_edge.training.command import command
from flashlips_edge.training.loop import Losses, Schedule, on, train
from flashlips_edge.training.pairs import Person, load_people, picture

BATCH = 48
SCALE, MARGIN = 16.0, 0.15  # of the cosines
LOWER_WEIGHT = 0.5
CHECKED = 6  # frames of each person who watches


class FeatureTask(nn.Module):
    """The network, one vector for each person, and a plain classifier of lower faces at the size that the losses see them in."""

    def __init__(self, people: int) -> None:
        super().__init__()
        self.network = FeatureNetwork()
        self.people = nn.Parameter(0.1 * torch.randn(people, EMBEDDING))
        self.lower = nn.Linear(WIDTHS[-1], people)


def identities(people: list[Person]) -> np.ndarray:
    """A number int64 [len(people)] for each person; clips of the one man of grid_s1 have the same."""
    names = ["grid_s1" if p.set_name == "grid_s1" and p.folder.name.endswith(".0") else p.folder.name for p in people]
    return np.unique(names, return_inverse=True)[1]


def disguise(crop: np.ndarray, generator: np.random.Generator, size: int) -> np.ndarray:
    """crop uint8 [H, W, 3] -> [size, size, 3]: the same person a little turned, moved, nearer, in other light, blurred, noisy."""
    height, width = crop.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), generator.normal(0, 4), generator.normal(1, 0.04))
    matrix[:, 2] += generator.normal(0, 0.02, 2) * width
    matrix = np.diag([size / width, size / height]) @ matrix
    small = cv2.warpAffine(crop, matrix, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    small = small * generator.normal(1, 0.12) * generator.normal(1, 0.05, 3) + generator.normal(0, 8, 3)
    if generator.random() < 0.3:
        small = cv2.GaussianBlur(small, (0, 0), generator.uniform(0.3, 1.2))
    return np.clip(small + generator.uniform(0, 4) * generator.standard_normal(small.shape, np.float32), 0, 255).astype(np.uint8)


def window(lower: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A square out of the lower picture uint8 [H, S, 3], as large as fits and somewhere near the middle."""
    height, width = lower.shape[:2]
    left = int(np.clip(generator.normal((width - height) / 2, width / 20), 0, width - height))
    return np.asarray(lower[:, left : left + height])


def draw(people: list[Person], numbers: np.ndarray, generator: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """faces and lower faces uint8 [B, 96, 96, 3], not of the same frames, and whose they are int64 [B]."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    faces, lowers, labels = [], [], []
    for label in generator.integers(len(starts), size=BATCH):
        person = people[order[generator.integers(starts[label], ends[label])]]
        t, s = generator.integers(len(person), size=2)
        faces.append(disguise(np.asarray(person["face"][t]), generator, FACE_SIZE))
        lowers.append(disguise(window(person["lower"][s], generator), generator, FACE_SIZE))
        labels.append(int(label))
    return torch.from_numpy(np.stack(faces)), torch.from_numpy(np.stack(lowers)), torch.tensor(labels)


def loss(task: FeatureTask, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
    """Cross entropy of the scaled cosines, the right one less the margin, and of the lower faces' classes."""
    faces, lowers, labels = batch
    cosines = task.network.embed(picture(faces)) @ F.normalize(task.people, dim=1).T
    right = F.one_hot(labels, len(task.people))
    lower = task.lower(task.network.maps(picture(lowers))[-1].mean((2, 3)))
    return {
        "face": F.cross_entropy(SCALE * (cosines - MARGIN * right), labels),
        "lower": LOWER_WEIGHT * F.cross_entropy(lower.float(), labels, label_smoothing=0.1),
    }


def verification_auc(vectors: np.ndarray, labels: np.ndarray) -> float:
    """How likely two faces of one person are more alike than faces of two: vectors float32 [N, D] of unit length, labels [N]."""
    first, second = np.triu_indices(len(vectors), 1)
    alike = (vectors @ vectors.T)[first, second]
    same = labels[first] == labels[second]
    ranks = np.argsort(np.argsort(alike, kind="stable"), kind="stable") + 1.0
    positive, negative = same.sum(), (~same).sum()
    return float((ranks[same].sum() - positive * (positive + 1) / 2) / (positive * negative))


class Checker:
    """Verification on people who were not learned from, plain and disguised, and on the synthetic ones alone, who are surely strangers."""

    def __init__(self, people: list[Person]) -> None:
        generator = np.random.default_rng(1)
        faces, disguised = [], []
        for person in people:
            for t in np.linspace(0, len(person) - 1, CHECKED).astype(int):
                face = np.asarray(person["face"][t])
                faces.append(face)
                disguised.append(disguise(face, generator, FACE_SIZE))
        self.pictures = {"plain": torch.from_numpy(np.stack(faces)), "disguised": torch.from_numpy(np.stack(disguised))}
        self.labels = np.repeat(identities(people), CHECKED)
        self.synthetic = np.repeat([p.set_name == "synthetic" for p in people], CHECKED)

    def __call__(self, task: nn.Module) -> dict[str, float]:
        assert isinstance(task, FeatureTask)
        result = {}
        for name, pictures in self.pictures.items():
            vectors = torch.cat([task.network.embed(picture(on(task, part))) for part in pictures.split(128)]).cpu().numpy()
            result[f"{name}_auc"] = verification_auc(vectors, self.labels)
            if self.synthetic.any() and not self.synthetic.all():
                result[f"{name}_synthetic_auc"] = verification_auc(vectors[self.synthetic], self.labels[self.synthetic])
        return result


def write(path: Path, network: FeatureNetwork) -> None:
    """The weights as float16 safetensors."""
    with atomic_path(path) as temporary:
        save_file({k: v.half().contiguous() for k, v in network.state_dict().items() if v.is_floating_point()}, temporary)


def main(
    latents: Annotated[Path, typer.Option(help="folder that training.latents wrote")] = Path("work/latents"),
    out: Annotated[Path, typer.Option(help="folder for the weights")] = Path("work/features"),
    steps: Annotated[int, typer.Option(help="optimiser steps")] = 1200,
) -> None:
    """Train the feature network."""
    people, held_out = load_people(latents)
    numbers = identities(people)
    task = FeatureTask(int(numbers.max()) + 1)
    schedule = Schedule(steps=steps, rate=2e-3, warm_up=50, average_decay=0.99, weight_decay=0.02, clip=5.0)
    batch = partial(draw, people, numbers)
    average = train("feature_task", task, batch, loss, schedule, out, check=Checker(held_out))  # type: ignore[arg-type]
    assert isinstance(average, FeatureTask)
    write(out / "features.safetensors", average.network)


if __name__ == "__main__":
    command(main)
