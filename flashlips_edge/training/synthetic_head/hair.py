"""Hair: outline by style, strands, shine. Made once per identity, lit once, laid over the face."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from flashlips_edge.training.synthetic_head.anatomy import half_width
from flashlips_edge.training.synthetic_head.fields import (
    Canvas,
    along,
    blur,
    closed_curve,
    cover,
    distance_to,
    mirrored,
    noise,
    sample,
    smoothstep,
)
from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.light import key_direction


class Hair(NamedTuple):
    """Lit linear colour [H, W, 3] with the coverage in front of and behind the face, each 0..1 [H, W], and its soft shadow on the skin."""

    colour: np.ndarray
    front: np.ndarray
    behind: np.ndarray
    shadow: np.ndarray


# per style: volume on top, volume at the sides, length (y of the ends; None stops at the ear)
SHAPES: dict[str, tuple[float, float, float | None]] = {
    "buzz": (0.02, 0.015, None), "short": (0.10, 0.045, None), "side": (0.15, 0.05, None), "quiff": (0.24, 0.05, None), "fringe": (0.14, 0.10, None),
    "bob": (0.15, 0.20, 1.35), "long": (0.13, 0.19, 2.0), "wavy": (0.17, 0.27, 1.95), "curly": (0.26, 0.30, 1.25), "afro": (0.38, 0.40, 0.75),
    "tied": (0.07, 0.03, None),
}  # fmt: skip


def grow(identity: Identity, grid: Canvas) -> Hair | None:
    """The identity's hair; None for a bald head."""
    style = identity.hair_style
    if style == "bald":
        return None
    rng = np.random.default_rng([19, identity.seed])
    x, y = grid.x, grid.y
    top, sides, ends = SHAPES[style]
    volume = 0.75 + 0.5 * identity.hair_volume
    top, sides = top * volume, sides * volume
    curly, long = style in ("curly", "afro"), ends is not None
    ends = ends or 0.0

    reach = [
        (-1.52 - top, 0.0),
        (-1.42 - top, 0.46),
        (-1.15 - 0.8 * top, 0.80 + 0.4 * sides),
        (-0.72 - 0.3 * top, 0.985 + 0.8 * sides),
        (-0.2, 1.0 + sides),
    ]
    if long:
        flare = {"bob": 0.02, "long": 0.03, "wavy": 0.10, "curly": 0.06, "afro": -0.02}[style]
        reach += [(0.4, 1.0 + sides + flare), (ends - 0.25, 0.95 + sides + flare), (ends, 0.70 + sides)]
    else:
        reach += [(0.1, 0.995 + 0.6 * sides), (0.3, 0.97)]
    right = [(w, v) for v, w in reach] + ([(0.0, ends)] if long else [])
    hull = distance_to(closed_curve(mirrored(right)), grid)

    part = identity.parting if style in ("side", "long", "wavy", "bob", "quiff") else 0.0
    crown_x, crown_y = part * 0.55, -1.42
    angle = np.arctan2(x - crown_x, (y - crown_y) + 0.25)
    radius = np.hypot(x - crown_x, y - crown_y)
    if style in ("quiff", "short", "side", "fringe"):
        flow = x + (0.25 * (y + 1) * np.sign(x - part) - 0.2 * part) * smoothstep(-0.2, -0.8, y)
        angle, radius = angle * 0.6 + flow * 0.5, y
    if style == "wavy":
        angle = angle + 0.022 * np.sin(radius * 9 + 0.8 * noise(grid, 0.6, rng)) * smoothstep(0.5, 1.2, radius)
    if curly:
        curl = noise(grid, 0.075, rng)
        strands = 0.75 * curl + 0.5 * noise(grid, 0.03, rng)
        lock = noise(grid, 0.16, rng)
    else:

        def comb(frequency: float, stretch: float) -> np.ndarray:
            texture = np.float32(rng.standard_normal((64, 512)))
            return sample(texture, (angle + 4) * frequency, (radius + 3) * stretch)

        strands = 0.55 * comb(70, 1.6) + 0.5 * comb(38, 1.2)
        lock = 0.7 * comb(11, 0.7) + 0.5 * comb(19, 0.9)

    ragged = {"afro": 0.03, "curly": 0.05, "wavy": 0.03}.get(style, 0.02)
    rough = ragged * (noise(grid, 0.11, rng) * 0.6 + noise(grid, 0.05, rng) * 0.4 if curly else 0.5 * strands)
    outer = cover(hull + rough, 0.05 if not curly else 0.07)

    # where the face shows through: below the hairline, between the temples
    line = identity.hairline
    if style == "fringe":
        line = -0.44 - 0.06 * identity.hair_volume
    temple = 0.80
    if long:
        inner = along(
            [(-0.9, temple - 0.04), (-0.5, 0.90), (0.0, 0.955), (0.6, 0.90 - 0.10 * sides), (1.2, 0.78), (1.6, 0.66), (2.1, 0.6)], y
        )
        if style in ("curly", "afro"):
            inner = along([(-0.9, temple - 0.06), (-0.4, 0.93), (0.2, 1.0), (0.8, 0.98), (1.6, 0.9), (2.1, 0.9)], y)
    else:
        burn = half_width(identity, y) - 0.075 - (0.05 if style in ("buzz", "tied") else 0)
        inner = np.where(
            y < 0.25, np.maximum(along([(-0.9, temple - 0.06), (-0.5, 0.85), (-0.3, 0.83), (0.0, 0.90)], y), np.minimum(burn, 0.92)), 2.0
        )
        inner = np.where(y > 0.14, 2.0, inner) if style != "tied" else np.where(y > -0.05, 2.0, inner)
    recede = (0.05 + 0.16 * identity.age) * (identity.femininity < 0.5) * (style != "fringe")
    wisps = (
        0.02 * noise(grid, 0.09, rng) + 0.012 * noise(grid, 0.04, rng)
        if curly
        else (0.018 + (0.012 if long else 0.05) * (7 * identity.hair_volume % 1)) * (0.6 * strands + 0.5 * lock)
    )
    if style == "fringe":
        wisps = wisps + 0.035 * lock
    peak = (
        line
        + 0.05 * np.exp(-((x / 0.14) ** 2)) * (style != "fringe")
        + 0.20 * np.clip(np.abs(x) / 0.80, 0, 1.2) ** 3.2
        - recede * np.exp(-(((np.abs(x) - 0.5) / 0.17) ** 2))
    )
    if abs(part) > 0.12 and style != "quiff":  # a side parting sweeps the hair over one temple
        sweep = np.sign(part) * (x - part * 0.55)
        peak = peak - 0.10 + 0.30 * smoothstep(0.05, 0.95, -sweep) + 0.10 * smoothstep(0.1, 0.5, sweep)
    face = np.minimum(y - peak + wisps, inner - np.abs(x) + wisps * 0.7)
    soft = {"buzz": 0.16, "short": 0.10, "tied": 0.09, "fringe": 0.06}.get(style, 0.075)
    front = outer * (1 - cover(face, soft))
    if style == "buzz":
        front = front * 0.80
    behind = outer if long else outer * 0

    # a rounded volume: brightest where it faces the light, dark towards its lower inside
    direction = key_direction(identity.light)
    bulge = blur(np.clip(hull, 0, 0.5), 0.05, grid)
    nx = np.clip(x / 1.15, -1, 1)
    ny = np.clip((y + 0.45) / 1.35, -1, 0.25)
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.06, 1))
    facing = nx * direction[0] + ny * direction[1] + nz * direction[2] + 0.10 * lock
    diffuse = np.clip(facing * 0.75 + 0.25, 0, 1)
    depth = (0.55 + 0.45 * smoothstep(0.0, 0.16, bulge)) * (1 - 0.28 * smoothstep(0.2, 1.4, y))
    if long:  # hair behind the neck lies in shade
        depth = depth * (1 - 0.55 * smoothstep(0.0, 0.25, inner - np.abs(x)) * smoothstep(0.3, 0.8, y))
    tone = np.clip(1 + 0.24 * strands + 0.16 * lock, 0.35, 1.8) * depth
    light = identity.light
    body = np.float32(identity.hair_colour) * tone[..., None]
    lit = body * (diffuse[..., None] * np.float32(light.key) + np.float32(light.sky) * 0.8 + np.float32(light.ground) * 0.2)
    band = np.exp(-(((ny + 0.50 + 0.25 * direction[1] + 0.05 * strands) / 0.16) ** 2)) * np.clip(facing, 0, 1) * depth
    shine = (0.030 if curly else 0.085) * band * np.clip(0.7 + 0.5 * strands, 0, 2) * (style != "buzz")
    lit = lit + shine[..., None] * (0.5 * np.float32(light.key) + 0.5 * np.sqrt(np.float32(identity.hair_colour)))
    shift = np.float32([[1, 0, -direction[0] * 0.05 * grid.density], [0, 1, 0.06 * grid.density]])
    cast = blur(cv2.warpAffine(front, shift, front.shape[::-1]), 0.045, grid)
    return Hair(np.float32(lit), np.float32(front), np.float32(behind), np.float32(cast * 0.42))
