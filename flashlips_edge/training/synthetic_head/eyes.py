"""Painting the eyes: ball, iris, lids and lashes, for one blink and gaze, on a window of the canvas; and the brows."""

from __future__ import annotations

import cv2
import numpy as np

from flashlips_edge.training.synthetic_head.fields import Canvas, along, noise, smoothstep
from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.pose import Pose

IRIS = 0.096  # radius in face units


def outer_corner(identity: Identity) -> tuple[float, float]:
    """The right eye's outer corner in face units; the left one is its mirror image."""
    return identity.eye_x + identity.eye_width, -identity.eye_tilt * identity.eye_width


def paint(under: np.ndarray, x: np.ndarray, y: np.ndarray, identity: Identity, pose: Pose, direction: np.ndarray) -> np.ndarray:
    """Both eyes over lit skin: ``under`` linear [h, w, 3], ``x`` [w] and ``y`` [h] face units; gives linear [h, w, 3]."""
    picture = under.copy()
    for side in (-1, 1):
        columns = np.flatnonzero(np.abs(x - side * identity.eye_x) < identity.eye_width + 0.13)
        if columns.size:
            part = slice(columns[0], columns[-1] + 1)
            picture[:, part] = _eye(picture[:, part], (x[part] * side)[None], y[:, None], side, identity, pose, direction)
    return picture


def _eye(under: np.ndarray, mx: np.ndarray, y: np.ndarray, side: int, identity: Identity, pose: Pose, direction: np.ndarray) -> np.ndarray:
    """One eye; ``mx`` runs from the nose outwards."""
    pixel = float(y[1, 0] - y[0, 0])
    soft = max(0.013, 1.3 * pixel)
    width, light = identity.eye_width, identity.light
    level = np.float32(light.key) * 0.62 + np.float32(light.sky) * 0.85
    u = (mx - identity.eye_x) / width  # -1 at the inner corner, 1 at the outer
    inside = np.clip(1 - u * u, 0, 1)
    axis = -identity.eye_tilt * width * u
    height = identity.eye_height * (1 + 0.10 * max(pose.brow, 0))
    lid_open = axis - 1.12 * height * inside ** (0.62 + 0.10 * u)
    lid_low = axis + 0.62 * height * inside**0.80
    lid_top = lid_open + (lid_low - lid_open) * 0.97 * pose.blink

    opening = smoothstep(-soft / 2, soft / 2, np.minimum(y - lid_top, lid_low - y)) * smoothstep(1.03, 0.97, np.abs(u))
    gaze_x, gaze_y = identity.eye_x + side * 0.075 * pose.gaze - 0.006, -0.020 - 0.05 * pose.pitch
    radius = np.sqrt((mx - gaze_x) ** 2 + (y - gaze_y) ** 2) / IRIS
    ball = 1 - 0.42 * np.clip(np.abs(u), 0, 1) ** 2.2 - 0.30 * smoothstep(0.055, 0.0, y - lid_top)
    white = np.float32([0.74, 0.70, 0.68]) * (0.62 + 0.45 * float(np.sqrt(identity.skin[0])))
    colour = (ball[..., None] * white) * (1 - 0.35 * smoothstep(-0.72, -0.98, u)[..., None] * np.float32([0.1, 0.9, 0.8]))
    colour = np.broadcast_to(colour, (*np.broadcast_shapes(ball.shape, radius.shape), 3)).copy()

    angle = np.arctan2(y - gaze_y, mx - gaze_x)
    streak = 1 + 0.18 * np.sin(angle * 17 + 2 * np.sin(angle * 5)) * smoothstep(0.35, 0.7, radius)
    lower_glow = 1 + 0.45 * smoothstep(-0.4, 0.9, (y - gaze_y) / IRIS)
    iris = np.float32(identity.eye_colour) * (1.35 * streak * lower_glow * (1 - 0.62 * smoothstep(0.78, 1.0, radius)))[..., None]
    iris = iris * smoothstep(0.36, 0.48, radius)[..., None] + 0.004
    edge = max(0.14, 1.4 * pixel / IRIS)
    colour += (iris * ball[..., None] - colour) * smoothstep(1 + edge / 2, 1 - edge / 2, radius)[..., None]
    colour *= level
    for dx, dy, size, strength in ((0.55, 0.55, 0.17, 0.85), (-0.5, -0.5, 0.16, 0.12)):
        at_x, at_y = gaze_x + side * direction[0] * dx * IRIS, gaze_y + direction[1] * dy * IRIS - 0.16 * IRIS
        spot = np.exp(-(((mx - at_x) ** 2 + (y - at_y) ** 2) / (max(size * IRIS, 0.8 * pixel) ** 2)))
        colour += strength * spot[..., None] * np.float32(light.key)

    picture = under
    # the lid's fold above and the socket's shade beside the nose move little; the lid itself is skin
    fold_y = axis - (1.12 * height + 0.048 + 0.022 * identity.femininity) * np.clip(1 - (u * 0.86) ** 2, 0, 1) ** 0.6
    fold = np.exp(-(((y - fold_y) / 0.016) ** 2)) * smoothstep(1.15, 0.85, np.abs(u)) * 0.40 * (1 - 0.6 * pose.blink)
    picture = picture * (1 - fold[..., None] * np.float32([0.8, 1, 1]))
    picture = picture + (colour - picture) * opening[..., None]
    # lashes: a dark line on the upper lid, thicker outwards; a faint lower rim
    thick = (0.013 + 0.016 * identity.lash * smoothstep(-1, 0.9, u)) * (0.55 + 0.45 * (1 - 0.3 * pose.blink))
    wing = 0.05 * identity.lash * np.clip(u - 0.8, 0, 1)
    lash = np.exp(-(((y - lid_top + 0.006 + wing) / thick) ** 2)) * smoothstep(1.12, 0.98, np.abs(u)) * (0.55 + 0.42 * identity.lash)
    rim = np.exp(-(((y - lid_low) / 0.011) ** 2)) * smoothstep(1.06, 0.9, np.abs(u)) * (0.16 + 0.26 * identity.lash)
    dark = np.clip(lash + rim, 0, 0.94)[..., None]
    return picture * (1 - dark) + dark * np.float32(identity.hair_colour) * 0.06


def brows(identity: Identity, grid: Canvas) -> np.ndarray:
    """Coverage of the brows at rest, 0..1 [H, W]."""
    rng = np.random.default_rng([17, identity.seed])
    mx, y = np.abs(grid.x), grid.y
    inner, outer = identity.eye_x - 0.27, identity.eye_x + 0.29
    u = (mx - inner) / (outer - inner)
    arch = identity.brow_y + along(
        [(0, 0.012), (0.35, -0.012 - 0.5 * identity.brow_arch), (0.66, -identity.brow_arch - 0.015), (1, 0.05)], u
    )
    thick = identity.brow_thickness * along([(0, 0.85), (0.15, 1.1), (0.55, 0.92), (1, 0.22)], u)
    hairs = noise(grid._replace(x=(mx * 0.55 + y * 0.9) * np.sign(grid.x), y=(y * 0.5 - mx * 0.55)), 0.02, rng)
    body = smoothstep(1.25, 0.35, np.abs(y - arch) / np.maximum(thick, 1e-3) + 0.16 * hairs)
    ends = smoothstep(-0.06, 0.10, u + 0.03 * hairs) * smoothstep(1.06, 0.86, u)
    return np.float32(np.clip(body * ends * (0.88 + 0.12 * hairs), 0, 1) * (0.72 + 0.2 * min(1.0, identity.brow_thickness / 0.05)))


def raise_brows(cover: np.ndarray, lift: float, density: float) -> np.ndarray:
    """``cover`` moved up by ``lift`` face units."""
    shift = np.float32([[1, 0, 0], [0, 1, -lift * density]])
    return cv2.warpAffine(cover, shift, cover.shape[::-1], flags=cv2.INTER_LINEAR)
