"""The mouths of some targets, edited to lips vectors."""

from __future__ import annotations

import numpy as np

from flashlips_edge.talking.identity import Identity
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.target import Target


def edit_mouths(
    networks: Networks, targets: list[Target], lips: np.ndarray, identity: Identity, known: dict[int, np.ndarray] | None = None
) -> np.ndarray:
    """The crops of targets with a face, edited to lips [B, 12]: float32 [B, S, S, 3] in 0 to 255.

    `known` holds latents by the picture's number in a looped avatar; what is missing is encoded and kept there.
    """
    known = {} if known is None else known
    crops = _crops(targets)
    keys = [-1 - i if target.index is None else target.index for i, target in enumerate(targets)]
    new = {key: target for key, target in zip(keys, targets) if key not in known}
    fresh = dict(zip(new, networks.encode(_crops(list(new.values()))))) if new else {}
    known.update((key, latent.astype(np.float16)) for key, latent in fresh.items() if key >= 0)
    latents = np.stack([fresh[key] if key in fresh else known[key].astype(np.float32) for key in keys])
    return networks.edit(crops, latents, identity.references.like(crops, lips), lips)


def _crops(targets: list[Target]) -> np.ndarray:
    """uint8 [B, S, S, 3] of targets with a face."""
    return np.stack([target.crop.image for target in targets if target.crop is not None])
