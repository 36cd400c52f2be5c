"""One channel of several."""

from __future__ import annotations

import numpy as np

CANCELLED = 0.25  # of the loudest channel; half of it is left of one that is alone


def downmix(samples: np.ndarray) -> np.ndarray:
    """The mean float32 [N] of float32 [N, channels]. Where channels cancel out, as of a cable whose poles are swapped, the loudest."""
    mono = samples.mean(axis=1)
    if not len(samples):
        return mono
    level = np.sqrt(np.square(samples).mean(axis=0))  # of each channel
    if np.sqrt(np.square(mono).mean()) < CANCELLED * level.max():
        return np.ascontiguousarray(samples[:, level.argmax()])
    return mono
