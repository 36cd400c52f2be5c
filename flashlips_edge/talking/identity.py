"""What the editor and the lips networks need to know of one face: crops to refer to, reference lips, the closed mouth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from flashlips_edge.talking.lips import FaceLips
from flashlips_edge.talking.networks import N_REFERENCES, Networks
from flashlips_edge.talking.references import References

CLOSED_SHARE = 0.1  # of the frames, the most closed ones, whose mean is the closed mouth
SPOKEN = 0.4  # opening, in the unit of the bundle's direction, between closed and open frames of a face that was seen speaking
SEEMS_CLOSED = 0.25  # opening, beyond the bundle's closed mouth, up to which people's closed mouths are read
PRESS = 0.25  # closed lips go this much beyond the face's own, against what stays open; with more they are pressed thin and pale
GATHER_EVERY_NS = 200_000_000
GATHER_LIMIT = 64  # crops of a live face, about 13 s
SAMPLES = 64  # crops of a recorded face

Item = TypeVar("Item")


@dataclass(frozen=True)
class Identity:
    """One face, from some crops of it.

    references: the crops. reference_lips float32 [4, 12]: those of four crops whose lips differ most, from the most closed to the
    most open; fewer crops than four repeat, and a face that was hardly seen to open is taken to open as faces do. closed_lips
    float32 [12]: the lips vector of the closed mouth. turn float32 [12, 12]: `own_way`, as far as it is known.
    """

    references: References
    reference_lips: np.ndarray
    closed_lips: np.ndarray
    turn: np.ndarray

    @staticmethod
    def of(networks: Networks, crops: list[np.ndarray]) -> Identity:
        """The identity in crops, uint8 [S, S, 3] each, at least one."""
        references = References(networks)
        for crop in crops:
            references.add(crop, networks.lips(crop[None])[0])
        return Identity.in_references(networks, references)

    @staticmethod
    def in_references(networks: Networks, references: References) -> Identity:
        """The identity in the crops of ``references``, at least one; more may come."""
        lips = references.lips
        opening = lips @ networks.bundle.lips_opening  # [N]
        chosen = choose_references(lips, opening)
        references.encode(chosen)
        few, order = max(1, round(CLOSED_SHARE * len(lips))), np.argsort(opening)
        closed, wide = lips[order[:few]].mean(0), lips[order[-few:]].mean(0)
        pressed = closed + PRESS * (closed - lips[chosen].mean(0))
        known = seen_speaking(wide - closed, networks.bundle.lips_opening)
        stands_open = (1 - known) * begun(networks, closed) * networks.bundle.lips_spoken
        shown = lips[chosen] + (1 - known) * speaking(networks) - stands_open
        return Identity(references, shown, pressed - stands_open, known * own_way(wide - closed, networks.bundle.lips_opening))

    @property
    def lips(self) -> FaceLips:
        """What speech needs to know."""
        return FaceLips(self.reference_lips, self.closed_lips, self.turn)


def lips_of(identity: Identity | None, networks: Networks) -> FaceLips:
    """The lips of a face, or the bundle's while no face is known."""
    if identity is not None:
        return identity.lips
    closed = np.asarray(networks.bundle.lips_closed, np.float32)
    return FaceLips(closed + speaking(networks), closed)


def speaking(networks: Networks) -> np.ndarray:
    """From closed to open, float32 [4, 12]: how far lips are from closed ones where a face speaks, any face."""
    return np.linspace(0, 1, N_REFERENCES, dtype=np.float32)[:, None] * networks.bundle.lips_spoken


def seen_speaking(opened: np.ndarray, direction: np.ndarray) -> np.float32:
    """From 0, never, to 1: how much is known of the way a face opens that went so far, [12], along the bundle's ``direction`` [12]."""
    return np.float32(np.clip(opened @ direction / SPOKEN, 0, 1) ** 2)


def begun(networks: Networks, lips: np.ndarray) -> np.float32:
    """From 0, closed, to 1, as far open as mouths go: where lips [12] stand that were never seen closed, such as a photo's smile."""
    bundle = networks.bundle
    beyond = (lips - bundle.lips_closed) @ bundle.lips_opening - SEEMS_CLOSED
    return np.float32(np.clip(beyond / max(1e-6, bundle.lips_spoken @ bundle.lips_opening), 0, 1))


def own_way(opened: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """What is to be added to a motion of lips [12], times this float32 [12, 12], so that it opens a face's mouth as the face does.

    ``opened`` [12] leads from its closed to its open mouth. A motion's part along the bundle's ``direction`` [12] of opening, which is
    any face's, is replaced by as much along ``opened``.
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


def evenly(items: Sequence[Item]) -> list[Item]:
    """At most SAMPLES items, the first and the last among them, that are about equally far apart."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, SAMPLES).astype(int))] if items else []


class LiveIdentity:
    """The identity of a live face: a crop every 200 ms, 64 at most; chosen anew whenever their number is a power of two.

    So the closed mouth is known with the first face, changes seven times in 13 s, and stays from then on.
    """

    def __init__(self, networks: Networks):
        self._networks = networks
        self._references = References(networks)
        self._count = 0
        self._next_ns = 0
        self.identity: Identity | None = None

    def see(self, crop: np.ndarray, pts_ns: int) -> Identity:
        """Take note of a crop uint8 [S, S, 3] of the face; gives the identity as known now."""
        if self.identity is None or (self._count < GATHER_LIMIT and pts_ns >= self._next_ns):
            self._next_ns = pts_ns + GATHER_EVERY_NS
            self._references.add(crop, self._networks.lips(crop[None])[0])
            self._count += 1
            if self._count & (self._count - 1) == 0:
                self.identity = Identity.in_references(self._networks, self._references)
        assert self.identity is not None
        return self.identity
