"""What tells two head poses of one face apart, without knowing the pose: the small grey upper face, which speech does not move."""

from __future__ import annotations

import cv2
import numpy as np

TOP, BOTTOM, LEFT, RIGHT = 24 / 160, 84 / 160, 30 / 160, 130 / 160  # brow to nose, in units of the crop
SIZE = (20, 10)


def upper_face(crop: np.ndarray) -> np.ndarray:
    """float32 [200], grey levels, of a crop uint8 RGB [S, S, 3]; the mean difference of two is their distance."""
    top, bottom, left, right = (round(edge * crop.shape[0]) for edge in (TOP, BOTTOM, LEFT, RIGHT))
    grey = cv2.cvtColor(crop[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, SIZE, interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
