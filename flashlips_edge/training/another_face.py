"""The same words from a face that opens its mouth along another direction of lips space, wider or less wide.

A lips vector says a little of whose lips they are: on two people the way from closed to open differs by some 40 degrees. Few people are
in the data; audio to lips has to take each face's own way from its references.
"""

from __future__ import annotations

import numpy as np

SHARE = 0.6  # of the windows
TURN = 0.5  # a direction's typical change, as a share of its length
WIDER = 0.15  # deviation of the logarithm


def another_face(deviation: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A matrix float64 [12, 12] by which lips vectors [T, 12], about any point of their face's own, become another face's.

    ``deviation`` [12] is how much each number varies on one face: the numbers are mixed in these units.
    """
    size = len(deviation)
    if generator.random() >= SHARE:
        return np.eye(size)
    mixed = np.eye(size) + TURN * generator.standard_normal((size, size)) / np.sqrt(size)
    return np.exp(generator.normal(0, WIDER)) * mixed * deviation / deviation[:, None]
