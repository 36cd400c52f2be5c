"""Scalar fields on a grid: the canvas in face units, soft edges, smooth noise, distances to closed curves.

Face units: 1 is half a face's width, about 70 mm; x to the picture's right, y down, z towards the viewer; the origin lies between the eyes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

LEFT, RIGHT, TOP, BOTTOM = -1.75, 1.75, -2.0, 2.1  # what the head's canvas covers


class Canvas(NamedTuple):
    """Pixel centres of the head's canvas in face units: ``x``, ``y`` float32 [H, W], at ``density`` pixels per unit."""

    x: np.ndarray
    y: np.ndarray
    density: float


@lru_cache(maxsize=8)
def canvas(density: float) -> Canvas:
    """The head's canvas at ``density`` pixels per face unit."""
    across = (np.arange(round((RIGHT - LEFT) * density), dtype=np.float32) + 0.5) / density + LEFT
    down = (np.arange(round((BOTTOM - TOP) * density), dtype=np.float32) + 0.5) / density + TOP
    x, y = np.meshgrid(across, down)
    return Canvas(np.float32(x), np.float32(y), density)


def smoothstep(low: float | np.ndarray, high: float | np.ndarray, value: np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, a cubic between; ``low`` above ``high`` turns it round."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], width: float, height: float) -> np.ndarray:
    """A Gaussian hill of height 1."""
    return np.exp(-0.5 * (((x - centre[0]) / width) ** 2 + ((y - centre[1]) / height) ** 2))


def along(points: list[tuple[float, float]], position: np.ndarray) -> np.ndarray:
    """A smooth curve without overshoot through (position, value) points, held constant outside them."""
    where, value = zip(*points, strict=True)
    return np.float32(PchipInterpolator(where, value)(np.clip(position, where[0], where[-1])))


def closed_curve(points: list[tuple[float, float]], steps: int = 240) -> np.ndarray:
    """A smooth closed curve through ``points``: float64 [steps, 2]."""
    ring = np.array([*points, points[0]], np.float64)
    length = np.concatenate([[0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(ring, axis=0), axis=1)))])
    return CubicSpline(length, ring, bc_type="periodic")(np.linspace(0, length[-1], steps, endpoint=False))


def mirrored(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A closed curve from its right half, listed from the top down; points on the middle line are not doubled."""
    return points + [(-x, y) for x, y in reversed(points) if abs(x) > 1e-6]


def distance_to(curve: np.ndarray, grid: Canvas) -> np.ndarray:
    """Signed distance to a closed curve in face units, positive inside: float32 [H, W]."""
    h, w = grid.x.shape
    fine = 2
    origin = np.array([LEFT, TOP])
    pixels = (curve - origin) * grid.density * fine - 0.5
    mask = np.zeros((h * fine, w * fine), np.uint8)
    cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(255 - mask, cv2.DIST_L2, 5)
    signed = cv2.resize(inside - outside, (w, h), interpolation=cv2.INTER_AREA)
    return signed / (grid.density * fine)


def cover(distance: np.ndarray, softness: float) -> np.ndarray:
    """Coverage from a signed distance: an edge ``softness`` units wide."""
    return smoothstep(-softness / 2, softness / 2, distance)


def noise(grid: Canvas, cell: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise with features of ``cell`` face units, about unit variance; the same picture at every density."""
    across, down = int((RIGHT - LEFT) / cell) + 4, int((BOTTOM - TOP) / cell) + 4
    lattice = np.float32(rng.standard_normal((down, across)))
    return sample(lattice, (grid.x - LEFT) / cell + 1, (grid.y - TOP) / cell + 1) * 1.4


def sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``texture`` at fractional positions, cubic, wrapped around."""
    return cv2.remap(texture, np.float32(x), np.float32(y), cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)


def blur(field: np.ndarray, sigma: float, grid: Canvas) -> np.ndarray:
    """Gaussian blur with ``sigma`` in face units."""
    return cv2.GaussianBlur(field, (0, 0), max(0.3, sigma * grid.density), borderType=cv2.BORDER_REPLICATE)
