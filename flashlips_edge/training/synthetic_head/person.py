"""One person's layers on the canvas: all that neither lips nor pose changes, made once and kept."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from flashlips_edge.training.synthetic_head import eyes, hair, skin
from flashlips_edge.training.synthetic_head.anatomy import relief
from flashlips_edge.training.synthetic_head.fields import Canvas, canvas, noise, smoothstep
from flashlips_edge.training.synthetic_head.identity import Identity


class Person(NamedTuple):
    """The layers of one identity, float32 on one canvas; ``over`` is what lies before the skin, ``behind`` what lies behind the neck."""

    grid: Canvas
    height: np.ndarray  # [H, W], for parallax
    colour: np.ndarray  # [H, W, 3] linear albedo of the skin
    cover: np.ndarray  # [H, W] of the skin
    normal: np.ndarray  # [H, W, 3]
    crevice: np.ndarray  # [H, W] share of light that reaches hollows
    brows: np.ndarray  # [H, W] coverage
    texture: np.ndarray  # [H, W] the lips' fine lines
    over: np.ndarray | None  # [H, W, 4] hair over glasses: premultiplied linear colour and coverage
    behind: np.ndarray | None  # [H, W, 4] long hair


@lru_cache(maxsize=24)
def person(identity: Identity, density: float) -> Person:
    """The layers of ``identity`` on a canvas of ``density`` pixels per face unit."""
    grid = canvas(density)
    form = relief(identity, grid)
    colour = skin.albedo(identity, grid, form)
    colour, normal, crevice, cover = _with_ears(identity, grid, colour, form.normal, form.crevice, form.inside)
    beard = skin.beard(identity, grid, form)
    if beard is not None:
        hairs = 0.55 + 0.12 * noise(grid, 0.02, np.random.default_rng([37, identity.seed]))
        colour = colour + (np.float32(identity.hair_colour) * hairs[..., None] - colour) * (0.92 * beard[..., None])
    over, behind = _glasses(identity, grid), None
    strands = hair.grow(identity, grid)
    if strands is not None:
        crevice = crevice * (1 - strands.shadow)
        front = np.dstack([strands.colour * strands.front[..., None], strands.front])
        over = front if over is None else front + over * (1 - strands.front[..., None])
        if strands.behind.any():
            behind = np.dstack([strands.colour * (0.55 * strands.behind[..., None]), strands.behind])
    texture = noise(grid._replace(x=grid.x * 2.2, y=grid.y * 0.5), 0.024, np.random.default_rng([31, identity.seed]))
    return Person(
        grid=grid,
        height=form.height,
        colour=np.float32(colour),
        cover=np.float32(cover),
        normal=np.float32(normal),
        crevice=np.float32(crevice),
        brows=eyes.brows(identity, grid),
        texture=np.float32(texture),
        over=None if over is None else np.float32(over),
        behind=None if behind is None else np.float32(behind),
    )


def _with_ears(
    identity: Identity, grid: Canvas, colour: np.ndarray, normal: np.ndarray, crevice: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colour, normal and crevice with ears behind the face's edge, and the coverage of the whole head."""
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
    half_x, half_y, power, thick = {
        "round": (0.30, 0.275, 2.1, 0.030),
        "square": (0.345, 0.225, 5.0, 0.042),
        "thin": (0.33, 0.205, 3.4, 0.016),
    }[identity.glasses]
    thick = max(thick, 1.0 / grid.density)
    reach = (np.abs((mx - centre_x) / half_x) ** power + np.abs((y - centre_y) / half_y) ** power) ** (1 / power)
    distance = np.abs(reach - 1) * min(half_x, half_y)
    soft = max(0.012, 1.2 / grid.density)
    frame = smoothstep(thick / 2 + soft, thick / 2 - soft / 2, distance)
    bridge = smoothstep(thick / 2 + soft, thick / 2 - soft / 2, np.abs(y + 0.05 - 0.04 * (mx / 0.15) ** 2)) * (
        mx < centre_x - half_x + 0.01
    )
    arm = smoothstep(thick / 2 + soft, thick / 2 - soft / 2, np.abs(y + 0.06)) * (mx > centre_x + half_x - 0.01) * (mx < 1.02)
    solid = np.maximum.reduce([frame, bridge, arm])
    top_light = 0.25 + 0.5 * np.clip(-(y - centre_y) / half_y, 0, 1)
    glare = (
        0.05
        * smoothstep(1.0, 0.95, reach)
        * smoothstep(0.06, 0.0, np.abs(mx - centre_x + 0.6 * (y - centre_y) - 0.1) - 0.05)
        * (grid.x > 0)
    )
    colour = np.float32(identity.glasses_colour) * (0.6 + top_light)[..., None] * np.float32(identity.light.key) + 0.015
    return np.float32(np.dstack([colour * solid[..., None] + glare[..., None] * np.float32(identity.light.key), np.maximum(solid, glare)]))
