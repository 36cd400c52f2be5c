"""Pictures as the networks take and give them, and as everybody else has them."""

from __future__ import annotations

import numpy as np


def to_network(images: np.ndarray) -> np.ndarray:
    """float32 [B, 3, S, S] in [0, 1] of uint8 [B, S, S, 3]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255.0)


def onto_crops(crops: np.ndarray, images: np.ndarray) -> np.ndarray:
    """float32 [B, S, S, 3] in 0 to 255: decoded images [B, 3, S', S] in [0, 1], and above them the crops uint8 [B, S, S, 3]."""
    pictures = crops.astype(np.float32)
    pictures[:, -images.shape[2] :] = (np.clip(images, 0.0, 1.0) * 255.0).transpose(0, 2, 3, 1)
    return pictures
