"""The mouths of some targets, edited to lips vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flashlips_edge.talking.chain import Edited, Latent, Pictures
from flashlips_edge.talking.identity import Identity
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.target import Target


def edit_mouths(
    networks: Networks, targets: list[Target], lips: np.ndarray, identity: Identity, known: dict[int, Latent] | None = None
) -> Sequence[Edited]:
    """The crops of targets with a face, edited to lips [B, 12]: each float32 [S, S, 3] in 0 to 255.

    `known` holds latents by the picture's number in a looped avatar; what is missing is encoded and kept there.
    """
    return begin_mouths(networks, targets, lips, identity, known)()


def begin_mouths(
    networks: Networks, targets: list[Target], lips: np.ndarray, identity: Identity, known: dict[int, Latent] | None = None
) -> Pictures:
    """The same, when it is asked for: on a GPU the next targets may be begun before that."""
    chain, known = networks.chain, {} if known is None else known
    crops = _crops(targets)
    keys = [-1 - i if target.index is None else target.index for i, target in enumerate(targets)]
    new = {key: target for key, target in zip(keys, targets) if key < 0 or key not in known}
    fresh = dict(zip(new, chain.encode(_crops(list(new.values()))))) if new else {}
    latents = [fresh[key] if key in fresh else chain.keep(known[key]) for key in keys]
    known.update((key, chain.keep(latent)) for key, latent in zip(keys, latents) if key >= 0)
    return chain.begin(crops, latents, identity.references.like(crops, lips), lips)


def _crops(targets: list[Target]) -> np.ndarray:
    """uint8 [B, S, S, 3] of targets with a face."""
    return np.stack([target.crop.image for target in targets if target.crop is not None])
