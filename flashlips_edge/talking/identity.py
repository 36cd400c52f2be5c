"""What the editor and speech need to know of one face: crops to refer to, and its mouth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from flashlips_edge.talking.lips import FaceLips
from flashlips_edge.talking.mouth import any_mouth, choose_references, mouth_of
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.references import MOST, References

LOOK_EVERY_NS = 200_000_000
SAMPLES = 64  # crops of a recorded face, ...
SAMPLED = 4  # ... or one of so many pictures, at most MOST: who was seen longer was seen with more mouths

Item = TypeVar("Item")


@dataclass(frozen=True)
class Identity:
    """One face, from some crops of it: ``references``, the crops, and ``lips``, what speech needs to know of its mouth."""

    references: References
    lips: FaceLips

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
        references.encode(choose_references(lips, lips @ networks.bundle.lips_opening))
        return Identity(references, mouth_of(lips, networks.bundle))


def lips_of(identity: Identity | None, networks: Networks) -> FaceLips:
    """The lips of a face, or any face's while none is known."""
    return identity.lips if identity is not None else any_mouth(networks.bundle)


def evenly(items: Sequence[Item], most: int = SAMPLES) -> list[Item]:
    """At most ``most`` items, the first and the last among them, that are about equally far apart."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).astype(int))] if len(items) else []


def sampled(pictures: Sequence[Item]) -> list[Item]:
    """Those of a recording's pictures, all with a face, that are looked at to know the face."""
    return evenly(pictures, min(max(SAMPLES, len(pictures) // SAMPLED), MOST))


class GrowingIdentity:
    """The identity of a face that is looked at again every 200 ms, as long as it is seen. One thread calls `see`.

    A live face's mouth is chosen anew whenever the number of looks is a power of two: known with the first, it changes seven times in
    13 s and ever more rarely from then on. A recording's mouth, `known` from its first `pictures`, stays; each later picture is looked
    at once.
    """

    def __init__(self, networks: Networks, known: Identity | None = None, pictures: int = 0):
        self._networks = networks
        self._references = known.references if known is not None else References(networks)
        self._looks, self._mouth_stays = 0, known is not None
        self._next_ns = 0
        self._pictures = pictures
        self.identity = known

    def see(self, crop: np.ndarray, pts_ns: int, index: int | None = None) -> Identity:
        """Take note of a crop uint8 [S, S, 3] of the face, in the recording's picture ``index``; gives the identity as known now."""
        new = index is None or index >= self._pictures
        if self.identity is None or (new and pts_ns >= self._next_ns):
            self._next_ns = pts_ns + LOOK_EVERY_NS
            self._references.look(crop, self._networks.lips(crop[None])[0], index)
            self._looks += 1
            if not self._mouth_stays and self._looks & (self._looks - 1) == 0:
                self.identity = Identity.in_references(self._networks, self._references)
        if index is not None:
            self._pictures = max(self._pictures, index + 1)
        assert self.identity is not None
        return self.identity
