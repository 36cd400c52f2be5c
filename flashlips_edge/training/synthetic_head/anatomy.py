"""The face as a height map: outline, relief, normals and crevices."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from flashlips_edge.training.synthetic_head.fields import Canvas, along, blur, bump, closed_curve, distance_to, mirrored, noise, smoothstep
from flashlips_edge.training.synthetic_head.identity import Identity


class Relief(NamedTuple):
    """On the canvas: ``height`` (smooth, for parallax), ``normal`` [H, W, 3] unit vectors, ``crevice`` 0..1 light left in hollows,
    ``inside`` distance to the face's outline, positive inside, and ``fold`` the nasolabial fold's line 0..1."""

    height: np.ndarray
    normal: np.ndarray
    crevice: np.ndarray
    inside: np.ndarray
    fold: np.ndarray


def half_width(identity: Identity, y: np.ndarray) -> np.ndarray:
    """Half the head's width at height ``y``; 0 above the crown and below the chin."""
    f, j, c, chin = identity.face_width, identity.jaw_width, identity.chin_width, identity.chin_y
    return along(
        [
            (-1.52, 0.0), (-1.49, 0.25), (-1.4, 0.50), (-1.25, 0.71), (-1.0, 0.89), (-0.75, 0.98), (-0.45, 1.01), (-0.1, 0.995), (0.2, 0.97 * f**0.5),
            (0.55, 0.91 * f), (chin - 0.63, 0.835 * f * (1 + j) / 2), (chin - 0.39, 0.735 * f * j), (chin - 0.23, 0.575 * f * (j + c) / 2), (chin - 0.11, 0.43 * c),
            (chin - 0.035, 0.25 * c), (chin, 0.0),
        ],
        y,
    )  # fmt: skip


def outline(identity: Identity) -> np.ndarray:
    """The head's silhouette without ears: closed curve [N, 2]."""
    y = np.concatenate(
        [
            -1.52 + 0.03 * np.array([0, 1, 3, 6]),
            np.linspace(-1.2, identity.chin_y - 0.3, 14),
            identity.chin_y - np.array([0.2, 0.13, 0.07, 0.03, 0.0]),
        ]
    )
    return closed_curve(mirrored([(float(w), float(v)) for w, v in zip(half_width(identity, y), y, strict=True)]))


def relief(identity: Identity, grid: Canvas) -> Relief:
    """Height map of the face and what the light needs of it."""
    x, y = grid.x, grid.y
    inside = distance_to(outline(identity), grid)
    mx = np.abs(x)  # the relief is mirrored; asymmetry is added as noise
    chin, nose_y, mouth_y = identity.chin_y, identity.nose_y, identity.mouth_y
    across = np.clip(mx / np.maximum(half_width(identity, y), 0.05), 0, 1)
    depth = along(
        [(-1.52, 0.0), (-1.42, 0.42), (-1.2, 0.72), (-0.8, 0.93), (-0.3, 1.0), (0.5, 1.0), (1.2, 0.97), (chin - 0.12, 0.86), (chin, 0.6)], y
    )
    dome = depth * np.sqrt(np.clip(1 - across**2.6, 0.0, 1))
    dome = blur(dome, 0.035, grid)

    ridge_y = np.clip((y + 0.22) / (nose_y + 0.16), 0, 1)
    nose_width = identity.nose_width
    ridge = (
        identity.nose_height * (0.12 + 0.88 * ridge_y**1.35) * np.exp(-0.5 * (mx / (0.085 + 0.055 * ridge_y**2 * nose_width / 0.235)) ** 2)
    )
    ridge = ridge * smoothstep(-0.42, -0.02, y)
    tip = 0.07 * bump(mx, y, (0, nose_y - 0.10), 0.095, 0.085)
    wings = 0.17 * bump(mx, y, (nose_width * 0.78, nose_y - 0.055), 0.062, 0.068)
    nose = (ridge + tip + wings) * smoothstep(nose_y + 0.10, nose_y - 0.10, y + 0.36 * np.maximum(mx - 0.05, 0))

    fold_x = along([(nose_y - 0.16, nose_width + 0.03), (nose_y + 0.05, nose_width + 0.10), (mouth_y, 0.50), (mouth_y + 0.16, 0.56)], y)
    fold_side = mx - fold_x
    fold = np.exp(-0.5 * (fold_side / 0.026) ** 2) * smoothstep(nose_y - 0.2, nose_y, y) * smoothstep(mouth_y + 0.17, mouth_y - 0.08, y)
    pouch = (
        np.exp(-0.5 * ((fold_side - 0.09) / 0.08) ** 2) * smoothstep(nose_y - 0.2, nose_y, y) * smoothstep(mouth_y + 0.2, mouth_y - 0.1, y)
    )
    folds = (0.25 + 0.75 * identity.age) * (-0.016 * fold + 0.03 * pouch)

    eye = identity.eye_x
    features = (
        0.055 * bump(mx, y, (0.40, identity.brow_y + 0.06), 0.30, 0.085) * (1.2 - 0.6 * identity.femininity)
        - 0.13 * bump(mx, y, (eye - 0.02, -0.02), 0.20, 0.125)
        - 0.07 * bump(mx, y, (0.20, 0.02), 0.075, 0.12)
        + 0.045 * bump(mx, y, (eye, 0.0), 0.15, 0.10)
        - (0.008 + 0.018 * identity.age) * bump(mx, y, (eye - 0.05, 0.155), 0.14, 0.028)
        + (0.02 + 0.07 * identity.cheek) * bump(mx, y, (0.60, 0.38), 0.24, 0.19)
        - 0.05 * identity.age * bump(mx, y, (0.66, 0.95), 0.16, 0.25)
        + 0.09 * bump(mx, y, (0, mouth_y), 0.33, 0.26)
        - 0.018 * bump(mx, y, (0, (nose_y + mouth_y) / 2), 0.038, 0.09)
        + 0.012 * bump(mx, y, (0.085, (nose_y + mouth_y) / 2 + 0.02), 0.03, 0.09)
        - 0.055 * bump(mx, y, (0, mouth_y + 0.235), 0.22, 0.055)
        + 0.085 * bump(mx, y, (0, chin - 0.19), 0.17 * identity.chin_width, 0.12)
        - 0.03 * bump(mx, y, (0.84, -0.35), 0.10, 0.22)
    )
    rng = np.random.default_rng([7, identity.seed])
    waves = sum(np.sin(y * 62 + k + 1.2 * np.sin(x * (3 + k))) for k in range(2)) * 0.0016
    wrinkles = waves * identity.age**2 * bump(mx, y, (0, -0.58), 0.42, 0.14)
    crow = np.sin(np.arctan2(y - 0.02, mx - identity.eye_x - 0.05) * 26) * 0.0022 * identity.age**2 * bump(mx, y, (0.78, 0.02), 0.07, 0.12)
    lumps = 0.003 * noise(grid, 0.25, rng) + (0.0004 + 0.0007 * identity.age) * noise(grid, 0.03, rng)

    smooth = blur(dome + 0.85 * nose + features * 0.7, 0.03, grid)
    height = dome + nose + features + folds + wrinkles + crow + lumps
    height = blur(height, 0.012, grid)
    dzdx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=grid.density / 8)
    dzdy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=grid.density / 8)
    normal = np.dstack([-dzdx, -dzdy, np.full_like(dzdx, 0.85)])
    # at the silhouette the surface turns away from the viewer
    away = smoothstep(0.07, -0.01, inside)[..., None]
    slope = blur(inside, 0.02, grid)
    rim = np.dstack([-np.gradient(slope, axis=1) * grid.density, -np.gradient(slope, axis=0) * grid.density, np.full_like(dzdx, 0.45)])
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    normal += (rim / np.linalg.norm(rim, axis=2, keepdims=True) - normal) * away
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    hollow = np.clip(blur(height, 0.05, grid) - height, -0.05, 0.1) * 2.2 + np.clip(blur(height, 0.14, grid) - height, -0.1, 0.2) * 1.3
    edge = smoothstep(-0.02, 0.16, inside)
    crevice = np.exp(-1.6 * np.maximum(hollow * edge, 0)) * (0.86 + 0.14 * edge)
    return Relief(np.float32(smooth), np.float32(normal), np.float32(crevice), inside, np.float32(fold))
