"""The same face with lips of another colour, as of make-up or of another complexion. No network finds the lips: their redness does."""

from __future__ import annotations

import cv2
import numpy as np

from flashlips_edge.training.boxes import LIPS, Box

AROUND = Box(96 / 160, 140 / 160, 40 / 160, 120 / 160)  # the mouth; most of it is skin
MIDDLE = Box(106 / 160, 138 / 160, 62 / 160, 98 / 160)  # where some of the lips are
REDDER = 8.5  # than skin, along a* of CIELAB, the reddest of lips are at least
EDGE = (0.4, 0.65)  # of the way from skin to these: not lips, surely lips
SIZES = (0.008, 0.06)  # of the crop: what is smaller or larger is no pair of lips
FOUND_SHARE = 0.9  # of a clip's frames, or its lips are left as they are
SOFT = 1 / 160  # of the crop: deviation of the blur of lips' edges
CHANGE = ((-9.0, 11.0), (7.0, 10.0), (0.0, 6.0))  # mean and deviation of what is added to L*, a* and b*


def lips_in(crop: np.ndarray) -> np.ndarray | None:
    """How much of each pixel is lips, float32 [S, S] from 0 to 1, in a crop uint8 RGB [S, S, 3]; None where they are not found."""
    size = len(crop)
    redness = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1]
    skin, reddest = np.percentile(_cut(redness, AROUND), 40), np.percentile(_cut(redness, MIDDLE), 85)
    if reddest - skin < REDDER:
        return None
    way = (redness - skin) / (reddest - skin)
    share = np.clip((way - EDGE[0]) / (EDGE[1] - EDGE[0]), 0, 1) * _inside(size)
    count, parts = cv2.connectedComponents((share > 0.5).astype(np.uint8))
    sizes = [np.count_nonzero(_cut(parts, MIDDLE) == part) for part in range(1, count)]
    if not sizes:
        return None
    lips = (parts == 1 + int(np.argmax(sizes))).astype(np.uint8)
    if not SIZES[0] < lips.mean() < SIZES[1]:
        return None
    near = cv2.dilate(lips, np.ones((size // 32, size // 32), np.uint8))
    return cv2.GaussianBlur(share * near, (0, 0), SOFT * size)


def other_lips(crops: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """crops uint8 [T, S, S, 3] with lips of one other colour; the crops themselves where lips are hardly found."""
    change = np.float32([generator.normal(*way) for way in CHANGE])
    found = [lips_in(crop) for crop in crops]
    if sum(lips is not None for lips in found) < FOUND_SHARE * len(crops):
        return crops
    result = crops.copy()
    for out, lips in zip(result, found):
        if lips is not None:
            lab = cv2.cvtColor(out.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) + lips[..., None] * change
            out[:] = np.clip(255 * cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) + 0.5, 0, 255)
    return result


def _cut(field: np.ndarray, box: Box) -> np.ndarray:
    top, bottom, left, right = box.pixels(len(field))
    return field[top:bottom, left:right]


def _inside(size: int) -> np.ndarray:
    """Where lips may be, float32 [S, S]: the ellipse in the box of lips and chin, soft towards its rim."""
    top, bottom, left, right = LIPS.pixels(size)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    away = np.hypot((x - (left + right) / 2) / ((right - left) / 2), (y - (top + bottom) / 2) / ((bottom - top) / 2))
    return np.clip((1.05 - away) / 0.15, 0, 1)
