"""Render a person with chosen lips: layers lit on a canvas in face units, then laid into the picture with parallax.

What does not depend on lips is cached per identity and canvas density; the lips change nothing above the base of the nose.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.training.synthetic_head import body, eyes, hair, light, mouth, skin
from flashlips_edge.training.synthetic_head.anatomy import relief
from flashlips_edge.training.synthetic_head.fields import BOTTOM, LEFT, TOP, Canvas, bump, canvas, noise, smoothstep
from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.lips import Curves, Lips, Mouth, curves, shape
from flashlips_edge.training.synthetic_head.pose import Pose, pixels_per_unit, to_face_units

DENSITIES = (24.0, 36.0, 48.0, 64.0, 88.0, 120.0, 160.0, 220.0, 300.0)  # canvas pixels per face unit


class Person(NamedTuple):
    """The cached layers of one identity at one density."""

    grid: Canvas
    height: np.ndarray
    surface: np.ndarray  # albedo, coverage [H, W, 4]
    normal: np.ndarray  # and crevice [H, W, 4]
    hair: hair.Hair | None
    brows: np.ndarray
    glasses: np.ndarray | None  # premultiplied linear [H, W, 4]
    texture: np.ndarray


@lru_cache(maxsize=48)
def person(identity: Identity, density: float) -> Person:
    """The layers of ``identity`` on a canvas of ``density`` pixels per face unit."""
    grid = canvas(density)
    form = relief(identity, grid)
    colour = skin.albedo(identity, grid, form)
    strands = hair.grow(identity, grid)
    colour, normal, crevice, cover = _ears(identity, grid, colour, form.normal, form.crevice, form.inside)
    beard = skin.beard(identity, grid, form)
    if beard is not None:
        colour = colour + (np.float32(identity.hair_colour) * (0.55 + 0.12 * noise(grid, 0.02, np.random.default_rng(3)))[..., None] - colour) * beard[..., None] * 0.92
    if strands is not None:
        crevice = crevice * (1 - strands.shadow)
    texture = noise(grid._replace(x=grid.x * 2.2, y=grid.y * 0.5), 0.024, np.random.default_rng([31, identity.seed]))
    return Person(
        grid,
        form.height,
        np.float32(np.dstack([colour, cover])),
        np.float32(np.dstack([normal, crevice])),
        strands,
        eyes.brows(identity, grid),
        _glasses(identity, grid),
        np.float32(texture),
    )


def _ears(identity: Identity, grid: Canvas, colour: np.ndarray, normal: np.ndarray, crevice: np.ndarray, inside: np.ndarray):  # type: ignore[no-untyped-def]
    """Ears behind the face's edge, and the coverage of the whole head."""
    soft = max(0.022, 1.4 / grid.density)
    face = smoothstep(-soft / 2, soft / 2, inside)
    mx, y = np.abs(grid.x), grid.y
    u, v = (mx - 0.985 * identity.face_width**0.5 - 0.02 - 0.05 * (0.25 - y)), (y - 0.20)
    shape_ = 1 - np.hypot(u / 0.115, v / (0.33 - 0.06 * (v > 0)))
    ear = smoothstep(0, soft / 0.11, shape_)
    rim = np.exp(-(((shape_ - 0.30) / 0.13) ** 2))
    ear_normal = np.dstack([np.sign(grid.x) * (0.55 - 0.6 * rim), 0.1 + 0.3 * v, np.full_like(u, 0.8)])
    ear_normal /= np.linalg.norm(ear_normal, axis=2, keepdims=True)
    ear_colour = np.float32(identity.skin) * np.float32([1.0, 0.83, 0.83]) * (1 - 0.42 * rim * (u < 0.07))[..., None]
    mix = face[..., None]
    colour = ear_colour + (colour - ear_colour) * mix
    normal = ear_normal + (normal - ear_normal) * mix
    crevice = 0.72 + (crevice - 0.72) * face
    return colour, normal, crevice, np.maximum(face, ear)


def _glasses(identity: Identity, grid: Canvas) -> np.ndarray | None:
    if identity.glasses == "none":
        return None
    mx, y = np.abs(grid.x), grid.y
    centre_x, centre_y = identity.eye_x + 0.02, 0.04
    half_x, half_y, power, thick = {"round": (0.30, 0.275, 2.1, 0.030), "square": (0.345, 0.225, 5.0, 0.042), "thin": (0.33, 0.205, 3.4, 0.016)}[identity.glasses]
    thick = max(thick, 1.0 / grid.density)
    reach = (np.abs((mx - centre_x) / half_x) ** power + np.abs((y - centre_y) / half_y) ** power) ** (1 / power)
    distance = np.abs(reach - 1) * min(half_x, half_y)
    soft = max(0.012, 1.2 / grid.density)
    frame = smoothstep(thick / 2 + soft, thick / 2 - soft / 2, distance)
    bridge = smoothstep(thick / 2 + soft, thick / 2 - soft / 2, np.abs(y + 0.05 - 0.04 * (mx / 0.15) ** 2)) * (mx < centre_x - half_x + 0.01)
    arm = smoothstep(thick / 2 + soft, thick / 2 - soft / 2, np.abs(y + 0.06)) * (mx > centre_x + half_x - 0.01) * (mx < 1.02)
    solid = np.maximum.reduce([frame, bridge, arm])
    top_light = 0.25 + 0.5 * np.clip(-(y - centre_y) / half_y, 0, 1)
    glare = 0.05 * smoothstep(1.0, 0.95, reach) * smoothstep(0.06, 0.0, np.abs(mx - centre_x + 0.6 * (y - centre_y) - 0.1) - 0.05) * (grid.x > 0)
    colour = np.float32(identity.glasses_colour) * (0.6 + top_light)[..., None] * np.float32(identity.light.key) + 0.015
    return np.float32(np.dstack([colour * solid[..., None] + glare[..., None] * np.float32(identity.light.key), np.maximum(solid, glare)]))


def _lower_face(identity: Identity, mouth_: Mouth, lips: Lips, edges: Curves, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the skin at (x, y) comes from when the jaw and the lips move: two maps of face units [h, w]."""
    rest = curves(shape(identity, Lips(upper_teeth=0.0)), x)
    rows = np.broadcast_to(y[:, None], (y.size, x.size))
    mx = np.abs(x)
    near = np.exp(-((np.clip(mx - mouth_.half_width * 0.9, 0, 9) / 0.30) ** 2))
    up = (edges.upper_outer - rest.upper_outer) * near
    low = (edges.lower_outer - rest.lower_outer) * near
    hinge = mouth_.chin_drop * np.clip(1 - (mx / 1.15) ** 2, 0, 1) ** 0.7
    low = low + hinge * (1 - near)
    nose = np.full_like(x, identity.nose_y + 0.03)
    top, bottom = np.minimum(edges.upper_outer, mouth_.middle_y - 0.03), np.maximum(edges.lower_outer, mouth_.middle_y + 0.03)
    chin = np.full_like(x, identity.chin_y - 0.22) + mouth_.chin_drop
    shift = np.zeros(rows.shape, np.float32)
    anchors = ((nose, 0 * x), (top, up), (bottom, low), (chin, hinge))
    for (y0, d0), (y1, d1) in zip(anchors, anchors[1:], strict=False):
        mix = np.clip((rows - y0) / np.maximum(y1 - y0, 0.02), 0, 1)
        shift = np.where(rows >= y0, d0 + (d1 - d0) * mix, shift)
    spread = mouth_.half_width - mouth_.rest_half_width
    pull = spread * np.sign(x) * np.clip(mx / mouth_.half_width, 0, 1) * np.exp(-((np.clip(mx - mouth_.half_width, 0, 9) / 0.22) ** 2))
    height = np.exp(-(((y - mouth_.middle_y - 0.4 * mouth_.gap) / 0.24) ** 2))
    hollow = 0.10 * mouth_.chin_drop * x * np.exp(-(((mx - 0.7) / 0.25) ** 2))
    from_x = x[None] - (pull[None] - hollow[None]) * height[:, None]
    return np.float32(from_x), np.float32(rows - shift)


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
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = (
        np.float32(f(a)) for a in (pose.yaw, pose.pitch) for f in (np.sin, np.cos)
    )
    for _ in range(6):
        depth = cv2.remap(form.height, (x - LEFT) * density - 0.5, (y - TOP) * density - 0.5, cv2.INTER_LINEAR)
        x = (turned_x - depth * sin_yaw) / cos_yaw
        y = (turned_y - PIVOT_Y - depth * sin_pitch) / cos_pitch + PIVOT_Y
    full = [cv2.resize(v, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)[step : step + height, step : step + width] for v in (x, y)]
    return (full[0] - LEFT) * density - 0.5, (full[1] - TOP) * density - 0.5


PIVOT_Y = 0.6  # height of the neck's joint about which the head nods
NOSE_BASE = 0.56  # lips change nothing above this, in face units


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
    from_x, from_y = _lower_face(identity, mouth_, lips, edges, x, y)
    map_x, map_y = (from_x - LEFT) * density - 0.5, (from_y - TOP) * density - 0.5
    surface, normal = form.surface.copy(), form.normal.copy()
    surface[rows, columns] = cv2.remap(form.surface, map_x, map_y, cv2.INTER_LINEAR)
    normal[rows, columns] = cv2.remap(form.normal, map_x, map_y, cv2.INTER_LINEAR)
    if form.brows is not None:
        cover = eyes.raise_brows(form.brows, 0.05 * pose.brow, density)
        surface[..., :3] += (np.float32(identity.hair_colour) * 0.42 - surface[..., :3]) * cover[..., None]
    lit = light.shade(surface[..., :3].copy(), normal[..., :3].copy(), normal[..., 3], identity.light, direction, 0.06 + 0.03 * identity.redness, 3)

    # the moving shadow under the lower lip and the smile's folds
    part = lit[rows, columns]
    gx, gy = grid.x[rows, columns], grid.y[rows, columns]
    lip_end = edges.lower_outer[None]
    below = np.exp(-(((gy - lip_end - 0.035) / 0.045) ** 2)) * smoothstep(1.05, 0.5, np.abs(gx) / mouth_.half_width) * 0.26
    smile = max(lips.width, 0) * (1 - lips.round)
    fold = smile * 0.20 * np.exp(-(((np.abs(gx) - mouth_.half_width - 0.09 - 0.25 * np.clip(identity.mouth_y - gy, -0.1, 1) * -0.35) / 0.028) ** 2))
    fold = fold * bump(gx * 0, gy, (0, identity.mouth_y - 0.06), 1, 0.13)
    part *= (1 - (below + fold)[..., None] * np.float32([0.8, 1, 1]))

    rows, columns, x, y = _window(grid, -0.66, 0.66, NOSE_BASE + 0.06, BOTTOM - 0.3)
    lit[rows, columns] = mouth.paint(lit[rows, columns], x, y, form.texture[rows, columns], identity, lips, mouth_, curves(mouth_, x), direction)
    rows, columns, x, y = _window(grid, -0.85, 0.85, -0.35, 0.30)
    lit[rows, columns] = eyes.paint(lit[rows, columns], x, y, identity, pose, direction)
    cover = surface[..., 3]
    picture = np.empty((*cover.shape, 4), np.float32)
    picture[..., :3] = lit * cover[..., None]
    picture[..., 3] = cover
    if form.glasses is not None:
        picture = form.glasses + picture * (1 - form.glasses[..., 3:])
    if form.hair is not None:
        front = form.hair.front[..., None]
        picture *= 1 - front
        picture[..., :3] += form.hair.colour * front
        picture[..., 3:] += front
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
    if form.hair is not None and form.hair.behind.any():
        behind = form.hair.behind[..., None]
        _layer(picture, np.dstack([form.hair.colour * behind * 0.55, behind]), map_x, map_y)
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
