"""Render a person with chosen lips: layers lit on a canvas in face units, then laid into the picture with parallax.

What depends on neither lips nor pose is kept per identity and canvas density; the lips change nothing above the base of the nose.
"""

from __future__ import annotations

import cv2
import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.training.synthetic_head import body, eyes, light, lower_face, mouth
from flashlips_edge.training.synthetic_head.fields import BOTTOM, LEFT, TOP, Canvas
from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.lips import Lips, curves, shape
from flashlips_edge.training.synthetic_head.person import Person, person
from flashlips_edge.training.synthetic_head.pose import Pose, pixels_per_unit, to_face_units

DENSITIES = (24.0, 36.0, 48.0, 64.0, 88.0, 120.0, 160.0, 220.0, 300.0)  # canvas pixels per face unit
PIVOT_Y = 0.6  # height of the neck's joint about which the head nods
NOSE_BASE = 0.56  # lips change nothing above this, in face units


def _map_points(form: Person, pose: Pose, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """For each picture pixel its canvas pixel: undo scale, roll and shift, then yaw and pitch by fixed-point iteration over the height."""
    height, width = size
    step = 4
    columns = np.arange(-1, -(-width // step) + 1, dtype=np.float32) * step + (step - 1) / 2
    rows = np.arange(-1, -(-height // step) + 1, dtype=np.float32) * step + (step - 1) / 2
    px, py = np.meshgrid(columns, rows)
    back = to_face_units(pose, size)
    turned_x = np.float32(back[0, 0] * px + back[0, 1] * py + back[0, 2])
    turned_y = np.float32(back[1, 0] * px + back[1, 1] * py + back[1, 2])
    x, y = turned_x.copy(), turned_y.copy()
    density = form.grid.density
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = (np.float32(f(a)) for a in (pose.yaw, pose.pitch) for f in (np.sin, np.cos))
    for _ in range(6):
        depth = cv2.remap(form.height, (x - LEFT) * density - 0.5, (y - TOP) * density - 0.5, cv2.INTER_LINEAR)
        x = (turned_x - depth * sin_yaw) / cos_yaw
        y = (turned_y - PIVOT_Y - depth * sin_pitch) / cos_pitch + PIVOT_Y
    full = [
        cv2.resize(v, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)[step : step + height, step : step + width] for v in (x, y)
    ]
    return (full[0] - LEFT) * density - 0.5, (full[1] - TOP) * density - 0.5


def _window(grid: Canvas, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    x, y = grid.x[0], grid.y[:, 0]
    i0, i1 = np.searchsorted(y, (top, bottom))
    j0, j1 = np.searchsorted(x, (left, right))
    rows, columns = slice(int(i0), int(i1)), slice(int(j0), int(j1))
    return rows, columns, x[columns], y[rows]


def _head(identity: Identity, pose: Pose, lips: Lips, form: Person) -> np.ndarray:
    """The head on its canvas: premultiplied linear [H, W, 4]."""
    grid, density = form.grid, form.grid.density
    direction = light.key_direction(identity.light, pose.yaw, pose.pitch)
    mouth_ = shape(identity, lips)
    rows, columns, x, y = _window(grid, -1.15, 1.15, NOSE_BASE, BOTTOM)
    edges = curves(mouth_, x)
    from_x, from_y = lower_face.skin_source(identity, mouth_, lips, edges, x, y)
    map_x, map_y = (from_x - LEFT) * density - 0.5, (from_y - TOP) * density - 0.5
    moved = []
    for layer in (form.colour, form.cover, form.normal, form.crevice):
        copy = layer.copy()
        copy[rows, columns] = cv2.remap(layer, map_x, map_y, cv2.INTER_LINEAR)
        moved.append(copy)
    colour, cover, normal, crevice = moved
    crevice[rows, columns] *= 1 - lower_face.shadow(identity, mouth_, lips, edges, x, y)

    rows, columns, x, y = _window(grid, -0.95, 0.95, -0.60, 0.05)
    brows = eyes.raise_brows(form.brows[rows, columns], 0.05 * pose.brow, density)
    colour[rows, columns] += (np.float32(identity.hair_colour) * 0.42 - colour[rows, columns]) * brows[..., None]
    lit = light.shade(colour, normal, crevice, identity.light, direction, 0.06 + 0.03 * identity.redness, 3)

    rows, columns, x, y = _window(grid, -0.66, 0.66, NOSE_BASE + 0.06, BOTTOM - 0.3)
    fine = form.texture[rows, columns]
    lit[rows, columns] = mouth.paint(lit[rows, columns], x, y, fine, identity, lips, mouth_, curves(mouth_, x), direction)
    rows, columns, x, y = _window(grid, -0.85, 0.85, -0.35, 0.30)
    lit[rows, columns] = eyes.paint(lit[rows, columns], x, y, identity, pose, direction)
    lit *= cover[..., None]
    picture = cv2.merge([*cv2.split(lit), cover])
    if form.over is not None:
        picture *= 1 - form.over[..., 3:]
        picture += form.over
    return picture


def _layer(picture: np.ndarray, layer: np.ndarray, map_x: np.ndarray, map_y: np.ndarray) -> None:
    """Lay a premultiplied layer over ``picture`` in place."""
    drawn = cv2.remap(layer, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    picture *= 1 - drawn[..., 3:]
    picture += drawn[..., :3]


def _check(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or not all(isinstance(s, (int, np.integer)) and 16 <= s <= 4096 for s in size):
        raise UserError(f"size is {size!r}; it must be (height, width), whole numbers from 16 to 4096")
    return int(size[0]), int(size[1])


def render(identity: Identity, pose: Pose, lips: Lips, size: tuple[int, int]) -> np.ndarray:
    """The picture of ``identity`` in ``pose`` with ``lips``: uint8 RGB [H, W, 3] for ``size`` (H, W).

    With the same identity and pose, other lips change only what lies below the base of the nose, inside the head and its chin's edge.

    Raises:
        UserError: ``size`` is not two whole numbers from 16 to 4096.
    """
    size = _check(size)
    wanted = 1.1 * pixels_per_unit(pose, size)
    density = next((d for d in DENSITIES if d >= wanted), DENSITIES[-1])
    form = person(identity, density)
    picture = body.backdrop(identity, size).copy()
    map_x, map_y = _map_points(form, pose, size)
    if form.behind is not None:
        _layer(picture, form.behind, map_x, map_y)
    _body(picture, identity, pose, size, density)
    _layer(picture, _head(identity, pose, lips, form), map_x, map_y)
    return light.to_picture(picture)


def _body(picture: np.ndarray, identity: Identity, pose: Pose, size: tuple[int, int], density: float) -> None:
    density = min(density, 120.0)
    layer = body.body(identity, density)
    back = to_face_units(pose, size, roll_share=0.25)
    back[:, 2] -= (0.30 * np.sin(pose.yaw), 0.25 * np.sin(pose.pitch))
    to_layer = np.array([[density, 0, body.SIDE * density - 0.5], [0, density, -body.TOP * density - 0.5]]) @ np.vstack([back, [0, 0, 1]])
    drawn = cv2.warpAffine(layer, to_layer, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT)
    picture *= 1 - drawn[..., 3:]
    picture += drawn[..., :3]


def opening(identity: Identity, pose: Pose, lips: Lips, size: tuple[int, int]) -> float:
    """True inner-lip opening over the distance of the outer eye corners, as seen in the picture: the measure |61-64| / |36-45|."""
    _check(size)
    corner_x, _ = eyes.outer_corner(identity)
    gap = shape(identity, lips).gap
    return float(gap * np.cos(pose.pitch) / (2 * corner_x * np.cos(pose.yaw)))
