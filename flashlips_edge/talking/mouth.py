"""What the lips vectors of some pictures say of a face's mouth: how it is closed, how far and along which way it opens."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from flashlips_edge.talking.lips import FaceLips
from flashlips_edge.talking.networks import N_REFERENCES

CLOSED_SHARE = 0.1  # of the pictures, the most closed ones, whose mean is the closed mouth; as many are the open one
SPOKEN = 0.4  # opening, in the unit of the bundle's direction, between closed and open pictures of a face that was seen speaking
SEEMS_CLOSED = 0.25  # opening, beyond the bundle's closed mouth, up to which people's closed mouths are read
AT_REST = 1.4  # lips of a face that was never seen to open go so much further: what no reference shows the editor opens by half of it
PRESS = 0.25  # closed lips go this much beyond the face's own, against what stays open; with more they are pressed thin and pale


class Meaning(Protocol):
    """What a lips vector's numbers mean, as a `Bundle` says it: float32 [12] each."""

    @property
    def lips_opening(self) -> np.ndarray: ...

    @property
    def lips_closed(self) -> np.ndarray: ...

    @property
    def lips_spoken(self) -> np.ndarray: ...


def mouth_of(lips: np.ndarray, meaning: Meaning) -> FaceLips:
    """The mouth in lips [N, 12], at least one. Its reference lips are four of them, from the most closed to the most open.

    What was hardly seen to open, a photo or a face at rest, is taken to open as mouths do, and is asked for more than that; one that
    stands open there, to close.
    """
    opening = lips @ meaning.lips_opening  # [N]
    closed, wide = closed_and_wide(lips, opening)
    shown = lips[choose_references(lips, opening)]
    pressed = closed + PRESS * (closed - shown.mean(0))
    known = seen_speaking(wide - closed, meaning.lips_opening)
    begun = (1 - known) * stands_open(closed, meaning) * meaning.lips_spoken
    reference = shown + (1 - known) * _speaking(meaning) - begun
    turn = known * own_way(wide - closed, meaning.lips_opening)
    further = (1 - known) * np.float32(AT_REST - 1)  # about the closed mouth, which stays where it is
    shift = reference.mean(0) @ turn + further * (closed - begun)
    return FaceLips(reference, pressed - begun, turn + further * np.eye(len(closed), dtype=np.float32), shift)


def closed_and_wide(lips: np.ndarray, opening: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means [12] of the most closed and of the most open of lips [N, 12], by their opening [N]."""
    order, few = np.argsort(opening), max(1, round(CLOSED_SHARE * len(lips)))
    return lips[order[:few]].mean(0), lips[order[-few:]].mean(0)


def any_mouth(meaning: Meaning) -> FaceLips:
    """The mouth of a face that is not known."""
    return FaceLips(meaning.lips_closed + _speaking(meaning), meaning.lips_closed)


def _speaking(meaning: Meaning) -> np.ndarray:
    """From closed to open, float32 [4, 12]: how far lips are from closed ones where any face speaks."""
    return np.linspace(0, 1, N_REFERENCES, dtype=np.float32)[:, None] * meaning.lips_spoken


def seen_speaking(opened: np.ndarray, direction: np.ndarray) -> np.float32:
    """From 0, never, to 1: how much is known of the way a face opens that went so far, [12], along the ``direction`` of opening [12]."""
    return np.float32(np.clip(opened @ direction / SPOKEN, 0, 1) ** 2)


def stands_open(lips: np.ndarray, meaning: Meaning) -> np.float32:
    """From 0, closed, to 1, as far open as mouths go: lips [12] that were never seen closed, such as a photo's smile."""
    beyond = (lips - meaning.lips_closed) @ meaning.lips_opening - SEEMS_CLOSED
    return np.float32(np.clip(beyond / max(1e-6, meaning.lips_spoken @ meaning.lips_opening), 0, 1))


def own_way(opened: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """What is to be added to a motion of lips [12], times this float32 [12, 12], so that it opens a face's mouth as the face does.

    ``opened`` [12] leads from its closed to its open mouth. A motion's part along the ``direction`` [12] of opening, which is any face's,
    is replaced by as much along ``opened``.
    """
    extent, size = float(opened @ direction), float(direction @ direction)
    if extent <= 0 or size == 0:
        return np.zeros((len(direction), len(direction)), np.float32)
    return np.outer(direction, opened / extent - direction / size).astype(np.float32)


def choose_references(lips: np.ndarray, opening: np.ndarray) -> list[int]:
    """Four indices into lips [N, 12] that cover them: the most closed, then each time the one farthest from all chosen.

    Sorted by opening [N]. With fewer than four vectors the last chosen is repeated.
    """
    chosen = [int(np.argmin(opening))]
    distance = np.linalg.norm(lips - lips[chosen[0]], axis=1)
    while len(chosen) < N_REFERENCES:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(lips - lips[chosen[-1]], axis=1))
    return sorted(chosen, key=lambda index: float(opening[index]))
