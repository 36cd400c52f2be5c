"""Reference latents for each frame: of the crops known of a face, those most like what the frame shall become.

A mouth that was seen once at this opening need not be invented: nearest in lips and in head pose, the editor copies its teeth, most
of the first. What one frame referred to the next one keeps, the first above all, unless others are clearly more alike: with every change
of references the picture flickers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from flashlips_edge.face.pose import upper_face
from flashlips_edge.talking.chain import Latent
from flashlips_edge.talking.networks import N_REFERENCES, Networks

TURNED = 6.0  # grey levels between poses: of a head that turns further they weigh more, else mouths are made of another view's
SAME_POSE = 0.7  # of the mean distance: up to that, heads count as held alike, else the edited frame itself, with its old lips, is nearest
SEEN_AGAIN = 1.0  # as unlike as that, a crop shows what was seen before; one as far as most is 2 away
MOST = 256  # crops of a face that is looked at for long, or of a recording
HELD = 0.3  # by how much less alike a reference may be that is in use; a crop as far as most is 2 away


class Seen(NamedTuple):
    """A crop uint8 [S, S, 3] of the face, its lips vector [12] and its pose; `look` counts crops, and tells old ones from new ones.
    `picture` is the number of the recording's picture that it was cut from, where that comes again."""

    crop: np.ndarray
    lips: np.ndarray
    pose: np.ndarray
    look: int
    picture: int | None

    @property
    def key(self) -> int:
        """By which its latent is kept: the picture's number, or one below zero of its own."""
        return -self.look if self.picture is None else self.picture


class References:
    """Crops of one face, with the lips vector and the pose of each, for frames in their order. Not for use by two threads at once.

    `latents` are a recording's by the picture's number, and kept by whoever edits its pictures: what is there is not encoded again.
    """

    def __init__(self, networks: Networks, latents: dict[int, Latent] | None = None):
        self._networks = networks
        self._known: list[Seen] = []
        self._looks = 0
        self._latents = {} if latents is None else latents  # by the crop's key, encoded when it is first needed
        self._held: list[int] = []  # those of the last frame

    @staticmethod
    def of_arrays(networks: Networks, crops: np.ndarray, lips: np.ndarray, latents: np.ndarray) -> References:
        """What `arrays` gave: crops uint8 [N, S, S, 3], lips vectors [N, 12] and latents [N, C, h, w]."""
        references = References(networks)
        for crop, vector in zip(crops, lips):
            references.add(crop, vector)
        references._latents |= {seen.key: networks.chain.keep(latent) for seen, latent in zip(references._known, latents)}
        return references

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is known, to be kept: every crop is encoded."""
        self.encode(list(range(len(self._known))))
        latents = np.stack([np.asarray(self._latents[seen.key]) for seen in self._known]).astype(np.float16)
        return {"crops": np.stack([seen.crop for seen in self._known]), "lips": self.lips, "latents": latents}

    def add(self, crop: np.ndarray, lips: np.ndarray, picture: int | None = None) -> None:
        """One more crop uint8 [S, S, 3] and its lips vector [12], of the recording's picture of that number."""
        self._known.append(self._seen(crop, lips, picture))

    def look(self, crop: np.ndarray, lips: np.ndarray, picture: int | None = None) -> None:
        """`add`, for a face looked at for long: beyond MOST crops, one replaces what it is like, or else what was not seen for longest."""
        seen = self._seen(crop, lips, picture)
        if len(self._known) < MOST:
            self._known.append(seen)
            return
        away = unlikeness(self.lips, self.poses, seen.lips, seen.pose)
        number = int(np.argmin(away))
        if away[number] > SEEN_AGAIN:
            number = min(range(len(self._known)), key=lambda i: self._known[i].look)
            self._held = [held for held in self._held if held != number]
        if (before := self._known[number]).picture is None:
            self._latents.pop(before.key, None)
        self._known[number] = seen

    def _seen(self, crop: np.ndarray, lips: np.ndarray, picture: int | None) -> Seen:
        self._looks += 1
        return Seen(crop, lips, upper_face(crop), self._looks, picture)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def lips(self) -> np.ndarray:
        """float32 [N, 12], of all crops."""
        return np.stack([seen.lips for seen in self._known])

    @property
    def poses(self) -> np.ndarray:
        """float32 [N, P], of all crops."""
        return np.stack([seen.pose for seen in self._known])

    def encode(self, chosen: list[int]) -> None:
        """Encode these crops now, so that no frame waits for them."""
        if new := {seen.key: seen.crop for seen in (self._known[i] for i in sorted(set(chosen))) if seen.key not in self._latents}:
            self._latents.update(zip(new, self._networks.chain.encode(np.stack(list(new.values())))))

    def like(self, crops: np.ndarray, lips: np.ndarray) -> list[list[Latent]]:
        """Four reference latents [C, h, w], the most alike first, for each of the crops uint8 [B, S, S, 3] that shall have lips [B, 12].

        At most one crop for each frame is newly encoded, so that a live frame never waits for more; until then the nearest that
        are known stand in.
        """
        all_lips, poses, found = self.lips, self.poses, []
        for crop, wanted in zip(crops, lips):
            away = unlikeness(all_lips, poses, wanted, upper_face(crop))
            self.encode([int(np.argmin(away))])
            for held in (self._held, self._held[:1]):
                away[held] -= HELD
            nearest = (int(i) for i in np.argsort(away, kind="stable"))
            self._held = list(islice((i for i in nearest if self._known[i].key in self._latents), N_REFERENCES))
            found.append([self._latents[self._known[i].key] for i in four_of(self._held)])
        return found


def four_of(numbers: Sequence[int]) -> list[int]:
    """Four numbers in their order; of fewer, the first ones are repeated."""
    return [numbers[i * len(numbers) // N_REFERENCES] for i in range(N_REFERENCES)]


def unlikeness(lips: np.ndarray, poses: np.ndarray, wanted: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """How unlike each of lips [N, 12] and poses [N, P] is to wanted [12] and pose [P], [N]: about 1 each on average, poses more where
    the head turns a lot."""
    apart, turned = np.linalg.norm(lips - wanted, axis=1), np.abs(poses - pose).mean(1)
    return apart / max(1e-6, apart.mean()) + np.maximum(turned / max(1e-6, min(turned.mean(), TURNED)), SAME_POSE)


def by_likeness(lips: np.ndarray, poses: np.ndarray, wanted: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Numbers of lips [N, 12] and poses [N, P], the most like wanted [12] and pose [P] first."""
    return np.argsort(unlikeness(lips, poses, wanted, pose), kind="stable")
