"""Crops through the picture graphs, in batches, with references of their own for each crop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flashlips_edge.talking.networks import N_REFERENCES, Networks

BATCH = 8


def encode(networks: Networks, crops: np.ndarray) -> np.ndarray:
    """Latents float32 [B, C, h, w] of crops [B, S, S, 3] with levels 0..255."""

    def run(part: np.ndarray) -> np.ndarray:
        image = np.ascontiguousarray(part.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        return networks.engine("latent_encoder").run({"image": image})["latent"]

    return _batched(run, crops)


def decode(networks: Networks, latents: np.ndarray) -> np.ndarray:
    """Crops uint8 [B, S, S, 3] of latents [B, C, h, w]."""

    def run(part: np.ndarray) -> np.ndarray:
        image = networks.engine("latent_decoder").run({"edited_latent": part})["image"]
        return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)

    return _batched(run, latents)


def edit(networks: Networks, latents: np.ndarray, references: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """Crops uint8 [B, S, S, 3] of latents [B, C, h, w] with references [B, 4C, h, w] and lips [B, 12]."""

    def run(part: np.ndarray, references: np.ndarray, lips: np.ndarray) -> np.ndarray:
        inputs = {"latent": part, "reference_latents": references, "lips": lips.astype(np.float32)}
        return networks.engine("editor").run(inputs)["edited_latent"]

    return decode(networks, _batched(run, latents, references, lips))


def lips_of(networks: Networks, crops: np.ndarray) -> np.ndarray:
    """Lips vectors float32 [B, 12] of crops uint8 [B, S, S, 3]."""
    return _batched(networks.lips, crops)


def reference_latents(latents: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """[B, 4C, h, w]: for each row of `picks` [B, 4] those four of `latents` [T, C, h, w], joined on channels."""
    assert picks.shape[1] == N_REFERENCES
    return latents[picks].reshape(len(picks), -1, *latents.shape[2:])


def _batched(function: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    starts = range(0, len(arrays[0]), BATCH)
    return np.concatenate([function(*(array[start : start + BATCH] for array in arrays)) for start in starts])
