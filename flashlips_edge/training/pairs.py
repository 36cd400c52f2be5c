"""Batches for the editor: a frame, references of the same person, and an input that hides or contradicts its lips."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flashlips_edge.errors import UserError
from flashlips_edge.talking.references import unlikeness
from flashlips_edge.training.boxes import LIPS, Box
from flashlips_edge.training.clips import SET_WEIGHT

REFERENCES = 4
STILL = 0.3  # share of a clip's frames that count as the same head pose
EXACT = 0.3  # grey levels
NEAR = 6  # frames
NEAR_SHARE = 0.6  # of the frames have references that look like them
RESTING_SHARE = 0.2  # of the frames have references that look like one another
MOVED = 0.5  # share of those whose mouths differ most
PARAMETERS = 6  # the synthetic head's true lips
COMPARED = Box(100 / 160, 148 / 160, 50 / 160, 110 / 160)  # of two mouths


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

    def __len__(self) -> int:
        return len(self["latents"])

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

    def parameters_of(self, t: int) -> np.ndarray:
        """The true lips float32 [6] of frame ``t``; NaN where nobody knows."""
        return self.parameters[t] if self.parameters is not None else np.full(PARAMETERS, np.nan, np.float32)

    def level(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """lower uint8 [H, S, 3] and face uint8 [E, E, 3] of frame ``t`` as the lips teacher sees them: before the head was turned, so
        that the lips vector says nothing of the turn."""
        turned = (self.folder / "level_face.npy").exists()
        return (self["level_lower"][t], self["level_face"][t]) if turned else (self["lower"][t], self["face"][t])

    @cached_property
    def _lips(self) -> np.ndarray | None:
        return self["lips"] if (self.folder / "lips.npy").exists() else None

    def lips_of(self, t: int) -> np.ndarray:
        """Lips of frame ``t``, bool [H, S]: what a face-parsing network said, or a box."""
        if self._lips is not None:
            return self._lips[t]
        height, size = self["lower"].shape[1:3]
        top, bottom, left, right = LIPS.pixels(size)
        mask = np.zeros((size, size), bool)
        mask[top:bottom, left:right] = True
        return mask[size - height :]

    @cached_property
    def mouths(self) -> np.ndarray:
        """Small green mouths float32 [T, n]."""
        height, size = self["lower"].shape[1:3]
        top, bottom, left, right = COMPARED.pixels(size)
        step, above = size // 40, size - height
        return self["lower"][:, top - above : bottom - above : step, left:right:step, 1].reshape(len(self), -1).astype(np.float32)

    def near(self, t: int) -> np.ndarray:
        """The few other frames that are most alike to frame ``t`` in head pose and mouth, not its neighbours in time."""
        others = self.apart(t)
        return others[np.argsort(self.unlikeness(t)[others], kind="stable")[:NEAR]]

    def unlikeness(self, t: int) -> np.ndarray:
        """How unlike frame ``t`` each frame is in mouth and head pose, [T], as the run path counts it."""
        return unlikeness(self.mouths, self["pose"], self.mouths[t], self["pose"][t])

    def apart(self, t: int) -> np.ndarray:
        """The frames that may be references of frame ``t``: not itself, if there is another, and not its neighbours."""
        return np.flatnonzero(np.abs(np.arange(len(self)) - t) >= max(min(1, len(self) - 1), min(3, len(self) // 4)))

    def references(self, t: int, generator: np.random.Generator, count: int) -> np.ndarray:
        """Frames to refer to: any; or, as on the run path, some that look like frame ``t`` among them; or, as of a photo or of a face that
        rests, such as look alike and show, most likely, another mouth. The most like frame ``t`` first."""
        others, kind = self.apart(t), generator.random()
        chosen = generator.choice(others, count, replace=len(others) < count)
        if kind < NEAR_SHARE:
            few, near = min(count, int(generator.integers(1, count + 3))), self.near(t)  # every second time all of them
            chosen[:few] = generator.choice(near, few, replace=len(near) < few)
        elif kind < NEAR_SHARE + RESTING_SHARE:
            resting = np.append(np.intersect1d(self.near(chosen[0]), others), chosen[0])
            chosen = np.resize(generator.permutation(resting)[: generator.integers(1, count + 1)], count)
        return chosen[np.argsort(self.unlikeness(t)[chosen], kind="stable")]

    def same_pose(self, t: int) -> np.ndarray:
        """The other frames whose head is nearly where it is in frame ``t`` and whose mouth is not; the only frame has itself."""
        if len(self) == 1:
            return np.array([t])
        turned = np.abs(self["pose"] - self["pose"][t]).mean(1)  # [T]
        moved = np.abs(self.mouths - self.mouths[t]).mean(1)
        order = np.argsort(turned, kind="stable")
        order = order[order != t]
        exact = order[turned[order] < EXACT]  # the synthetic head's other lips in the very same pose
        still = exact if len(exact) >= 2 else order[: max(4, int(STILL * len(turned)))]
        return still[np.argsort(-moved[still], kind="stable")[: max(2, int(MOVED * len(still)))]]


class Batch(NamedTuple):
    """A batch as it is stored and moved: half-precision latents, pictures in bytes; its properties are what losses compute with."""

    latents: Tensor  # float16 [B, C, h, w], the input
    target_latents: Tensor  # float16 [B, C, h, w]
    reference_latents: Tensor  # float16 [B, K*C, h, w]
    lower_pictures: Tensor  # uint8 [B, H, S, 3], of the target
    face_pictures: Tensor  # uint8 [B, 96, 96, 3], of the target
    other_pictures: Tensor  # uint8 [B, H, S, 3]: the same head pose with another mouth
    lips_masks: Tensor  # bool [B, H, S]: the target's lips
    parameters: Tensor  # float32 [B, 6], NaN where unknown
    hidden: Tensor  # float32 [B]: 1 where the input was masked
    level_lower_pictures: Tensor  # uint8 [B, H, S, 3]: the target before its head was turned
    level_face_pictures: Tensor  # uint8 [B, E, E, 3]: its face

    @property
    def latent(self) -> Tensor:
        """The input [B, C, h, w]."""
        return _floating(self.latents)

    @property
    def target(self) -> Tensor:
        """The frame's own latent [B, C, h, w]."""
        return _floating(self.target_latents)

    @property
    def references(self) -> Tensor:
        """Latents of other frames [B, K*C, h, w]."""
        return _floating(self.reference_latents)

    @property
    def lower(self) -> Tensor:
        """Lower part of the target [B, 3, H, S] in [0, 1]."""
        return picture(self.lower_pictures)

    @property
    def face(self) -> Tensor:
        """The target's whole crop [B, 3, 96, 96] in [0, 1]."""
        return picture(self.face_pictures)

    @property
    def level_lower(self) -> Tensor:
        """Lower part of the target as its lips are read from it [B, 3, H, S] in [0, 1]."""
        return picture(self.level_lower_pictures)

    @property
    def level_face(self) -> Tensor:
        """The target's whole crop as its lips are read from it [B, 3, E, E] in [0, 1]."""
        return picture(self.level_face_pictures)

    @property
    def unturned(self) -> Tensor:
        """1 where the target's head is as its lips were read, 0 where it was turned after that, float32 [B]."""
        return (self.level_face_pictures == self.face_pictures).flatten(1).all(1).float()

    @property
    def other(self) -> Tensor:
        """The same head pose with another mouth [B, 3, H, S] in [0, 1]."""
        return picture(self.other_pictures)

    @property
    def lips(self) -> Tensor:
        """1 on the target's lips, else 0, [B, 1, H, S]."""
        return self.lips_masks[:, None].float()


def _floating(latent: Tensor) -> Tensor:
    return latent.float().contiguous(memory_format=torch.channels_last)


def picture(pictures: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1], channels last in memory."""
    return pictures.permute(0, 3, 1, 2).float() / 255


def load_people(folder: Path) -> tuple[list[Person], list[Person]]:
    """The people to learn from and those who watch; all of them where there are none of a kind. Raises UserError without people."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each array that was looked at stays open
    people = [Person(p.parent) for p in sorted(folder.glob("*/latents.npy"))]
    if not people:
        raise UserError(f"--latents {folder}: no cached latents; run python -m flashlips_edge.training.latents first")
    return [p for p in people if not p.held_out] or people, [p for p in people if p.held_out] or people


def person_weights(people: list[Person], set_weight: Mapping[str, float] = SET_WEIGHT) -> np.ndarray:
    """Drawing probability [len(people)]: sets by ``set_weight``, people of a set alike."""
    counts = {name: sum(p.set_name == name for p in people) for name in {p.set_name for p in people}}
    weights = np.array([set_weight.get(p.set_name, 0.2) / counts[p.set_name] for p in people])
    return weights / weights.sum()


def draw(
    people: list[Person],
    weights: np.ndarray,
    generator: np.random.Generator,
    count: int,
    masked_share: float,
    references: int = REFERENCES,
) -> Batch:
    """A batch: with probability ``masked_share`` the input is the frame itself with its lower face hidden, else another
    frame of the same head pose with its own lips (one time in ten the frame itself: nothing is to be changed)."""
    rows: list[tuple[np.ndarray, ...]] = []
    for index in generator.choice(len(people), count, p=weights):
        person = people[index]
        t = int(generator.integers(len(person)))
        hidden = generator.random() < masked_share
        s = t if generator.random() < 0.1 else int(generator.choice(person.same_pose(t)))
        seen = person.references(t, generator, references)
        rows.append(
            (
                person["masked"][t] if hidden else person["latents"][s],
                person["latents"][t],
                np.concatenate([person["latents"][r] for r in seen]),
                person["lower"][t],
                person["face"][t],
                person["lower"][s],
                person.lips_of(t),
                person.parameters_of(t),
                np.float32(hidden),
                *person.level(t),
            )
        )
    return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows)))
