"""Batches for the editor: a frame, four references of the same person, and an input that hides or contradicts its lips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flashlips_edge.errors import UserError
from flashlips_edge.models.lips import FACE_SIZE, MOUTH_BOX, MOUTH_SIZE
from flashlips_edge.training.clips import SET_WEIGHT
from flashlips_edge.training.latents import LOWER

REFERENCES = 4
STILL = 0.3  # share of a clip's frames that count as the same head pose
EXACT = 0.3  # grey levels
MOVED = 0.5  # share of those whose mouths differ most
PARAMETERS = 6  # the synthetic head's true lips


@dataclass(frozen=True)
class Person:
    """One folder of cached latents."""

    folder: Path

    @property
    def set_name(self) -> str:
        return self.folder.name.split(".")[0]

    @property
    def held_out(self) -> bool:
        return sum(self.folder.name.rsplit(".", 1)[0].encode()) % 10 == 0

    def __getitem__(self, name: str) -> np.ndarray:
        arrays: dict[str, np.ndarray] = self.__dict__.setdefault("arrays", {})
        if name not in arrays:
            arrays[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return arrays[name]

    @cached_property
    def parameters(self) -> np.ndarray | None:
        """The synthetic head's true lips float32 [T, 6]; None for a real person."""
        path = self.folder / "params.npy"
        return np.load(path, allow_pickle=False) if path.exists() else None

    @cached_property
    def same_pose(self) -> list[np.ndarray]:
        """For each frame the other frames whose head is nearly where it is and whose mouth is not."""
        pose = np.asarray(self["pose"])
        mouth = self["lower"][:, 100 - LOWER : 148 - LOWER : 4, 50:110:4, 1].reshape(len(pose), -1).astype(np.float32)
        turned = np.abs(pose[:, None] - pose[None]).mean(2)  # [T, T]
        moved = np.abs(mouth[:, None] - mouth[None]).mean(2)
        count = max(4, int(STILL * len(pose)))
        result = []
        for i, order in enumerate(np.argsort(turned, 1, kind="stable")):
            exact = order[(turned[i, order] < EXACT) & (order != i)]  # the synthetic head's other lips in the very same pose
            still = exact if len(exact) >= 2 else order[order != i][:count]
            result.append(still[np.argsort(-moved[i, still], kind="stable")[: max(2, int(MOVED * len(still)))]])
        return result


@dataclass
class Batch:
    """latent (input), target [B, C, h, w]; references [B, 4C, h, w]; lower [B, 3, S-56, S] and face [B, 3, 96, 96] of the target
    in [0, 1]; other [B, 3, S-56, S]: the same head pose with another mouth; parameters [B, 6], NaN where unknown; hidden [B]:
    whether the input was masked."""

    latent: Tensor
    target: Tensor
    references: Tensor
    lower: Tensor
    face: Tensor
    other: Tensor
    parameters: Tensor
    hidden: Tensor


def load_people(folder: Path) -> tuple[list[Person], list[Person]]:
    """The people to learn from and those who watch; all of them watch where none was held out. Raises UserError without people."""
    people = [Person(p.parent) for p in sorted(folder.glob("*/latents.npy"))]
    if not people:
        raise UserError(f"--latents {folder}: no cached latents; run python -m flashlips_edge.training.latents first")
    return [p for p in people if not p.held_out], [p for p in people if p.held_out] or people


def person_weights(people: list[Person], set_weight: Mapping[str, float] = SET_WEIGHT) -> np.ndarray:
    """Drawing probability [len(people)]: sets by ``set_weight``, people of a set alike."""
    counts = {name: sum(p.set_name == name for p in people) for name in {p.set_name for p in people}}
    weights = np.array([set_weight.get(p.set_name, 0.2) / counts[p.set_name] for p in people])
    return weights / weights.sum()


def draw(people: list[Person], weights: np.ndarray, generator: np.random.Generator, count: int, masked_share: float) -> Batch:
    """A batch: with probability ``masked_share`` the input is the frame itself with its lower face hidden, else another
    frame of the same head pose with its own lips (one time in ten the frame itself: nothing is to be changed)."""
    rows: list[tuple[np.ndarray, ...]] = []
    for index in generator.choice(len(people), count, p=weights):
        person = people[index]
        length = len(person["latents"])
        t = int(generator.integers(length))
        hidden = generator.random() < masked_share
        s = t if generator.random() < 0.1 else int(generator.choice(person.same_pose[t]))
        others = np.flatnonzero(np.abs(np.arange(length) - t) >= min(3, length // 4))
        references = generator.choice(others, REFERENCES, replace=len(others) < REFERENCES)
        parameters = person.parameters[t] if person.parameters is not None else np.full(PARAMETERS, np.nan, np.float32)
        rows.append(
            (
                person["masked"][t] if hidden else person["latents"][s],
                person["latents"][t],
                np.concatenate([person["latents"][r] for r in references]),
                person["lower"][t],
                person["face"][t],
                person["lower"][s],
                parameters,
                np.float32(hidden),
            )
        )
    latent, target, references, lower, face, other, parameters, hidden = (np.stack(column) for column in zip(*rows))

    def flat(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.float32)).contiguous(memory_format=torch.channels_last)

    def picture(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).float() / 255

    return Batch(
        flat(latent),
        flat(target),
        flat(references),
        picture(lower),
        picture(face),
        picture(other),
        torch.from_numpy(parameters.astype(np.float32)),
        torch.from_numpy(hidden),
    )


def look(lower: Tensor, face: Tensor, generator: np.random.Generator, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """What the lips teacher sees: face [B, 3, 96, 96] and mouth [B, 3, 64, 64], shifted, scaled and coloured at random, so
    that the lips vector can carry the lips' shape only. ``strength`` 0 gives the plain views."""
    b, _, height, size = lower.shape
    shift = torch.from_numpy(generator.normal(0, 0.02 * strength, (b, 2)).astype(np.float32))
    zoom = torch.from_numpy(1 + generator.normal(0, 0.04 * strength, b).astype(np.float32))
    face_view = _sample(face, shift, zoom, (0.0, 1.0, 0.0, 1.0), FACE_SIZE, 1.0, 0.0)
    mouth_view = _sample(lower, shift, zoom, MOUTH_BOX, MOUTH_SIZE, size / height, LOWER / size)
    if strength:
        gain = torch.from_numpy(generator.normal(1, 0.12, (b, 3, 1, 1)).astype(np.float32))
        bias = torch.from_numpy(generator.normal(0, 0.05, (b, 3, 1, 1)).astype(np.float32))
        face_view, mouth_view = face_view * gain + bias, mouth_view * gain + bias
    return face_view, mouth_view


def _sample(
    image: Tensor, shift: Tensor, zoom: Tensor, box: tuple[float, float, float, float], size: int, stretch: float, start: float
) -> Tensor:
    """Sample a box (crop units) out of ``image``, whose rows cover the crop from ``start`` on, 1/stretch of its height."""
    top, bottom, left, right = box
    line = (torch.arange(size) + 0.5) / size
    y = top + (bottom - top) * line
    x = left + (right - left) * line
    y = (y[None] - 0.5) * zoom[:, None] + 0.5 + shift[:, :1]  # [B, size] in crop units
    x = (x[None] - 0.5) * zoom[:, None] + 0.5 + shift[:, 1:]
    grid = torch.stack([(2 * x - 1)[:, None, :].expand(-1, size, -1), (2 * (y - start) * stretch - 1)[:, :, None].expand(-1, -1, size)], -1)
    return F.grid_sample(image, grid.to(image), align_corners=False, padding_mode="border")
