"""Other people from the same clip: one smooth warp, mirror, colour and light per clip, the same for all of its frames."""

from __future__ import annotations

import cv2
import numpy as np

WARP_PX = 3.5  # deviation of the smooth displacement at 160 px
LIGHT = 0.25  # strength of the added light's gradient


def another_person(crops: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """crops uint8 [T, S, S, 3] -> the same shape, as if another face had spoken under another light."""
    size = crops.shape[1]
    grid_x, grid_y = _warp(size, generator)
    light = _light(size, generator)
    matrix, offset, gamma = _colour(generator)
    table = (255 * (np.arange(256) / 255) ** gamma).astype(np.float32)
    blur = generator.uniform(0.4, 1.0) if generator.random() < 0.2 else 0.0
    result = np.empty_like(crops)
    for i, crop in enumerate(crops):
        warped = cv2.remap(crop, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        if blur:
            warped = cv2.GaussianBlur(warped, (0, 0), blur)
        coloured = cv2.transform(table[warped], matrix) * light + offset
        result[i] = np.clip(coloured, 0, 255)
    return result


def _warp(size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sampling grids float32 [S, S]: mirror, rotation, unequal scale, shift and a smooth displacement."""
    unit = size / 160
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) - (size - 1) / 2
    if generator.random() < 0.5:
        x = -x
    angle = generator.normal(0, 0.12)  # tilted heads are rare in the data, not in the world
    scale_x, scale_y = generator.normal(1, 0.07), generator.normal(1, 0.07)
    rotated_x = (np.cos(angle) * x - np.sin(angle) * y) * scale_x + generator.normal(0, 3 * unit)
    rotated_y = (np.sin(angle) * x + np.cos(angle) * y) * scale_y + generator.normal(0, 3 * unit)
    bumps = generator.normal(0, WARP_PX * unit, (2, 5, 5)).astype(np.float32)
    dx, dy = (cv2.resize(b, (size, size), interpolation=cv2.INTER_CUBIC) for b in bumps)
    centre = (size - 1) / 2
    return (rotated_x + dx + centre).astype(np.float32), (rotated_y + dy + centre).astype(np.float32)


def _light(size: int, generator: np.random.Generator) -> np.ndarray:
    """A soft multiplicative light float32 [S, S, 3]."""
    bumps = 1 + generator.normal(0, LIGHT / 2, (3, 3, 1)) + generator.normal(0, LIGHT / 6, (3, 3, 3))
    return cv2.resize(bumps.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def _colour(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """A colour matrix [3, 3] (brightness, saturation, channel gains), an offset [3] and a gamma."""
    luma = np.full((3, 3), 1 / 3)
    saturation = generator.uniform(0.4, 1.4)
    gains = np.diag(generator.normal(1, 0.1, 3) * generator.uniform(0.65, 1.2))
    matrix = gains @ (luma + saturation * (np.eye(3) - luma))
    if generator.random() < 0.15:
        matrix = matrix[generator.permutation(3)]
    return matrix.astype(np.float32), generator.normal(0, 6, 3).astype(np.float32), float(generator.uniform(0.65, 1.5))
