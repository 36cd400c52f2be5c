"""Painting the mouth: cavity, teeth, tongue and the two lips, for one set of lips, on a window of the canvas."""

from __future__ import annotations

import cv2
import numpy as np

from flashlips_edge.training.synthetic_head.fields import smoothstep
from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.light import shade
from flashlips_edge.training.synthetic_head.lips import Curves, Lips, Mouth

TOOTH_EDGES = np.float32([0, 0.118, 0.208, 0.29, 0.355, 0.405, 0.44])  # from the middle outwards, as seen on the dental arch


def _over(below: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return below + (colour - below) * alpha[..., None]


def _gaps(x: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Darkness between neighbouring teeth and the rounding of their edges, per column."""
    mx = np.abs(x) / scale
    nearest = np.min(np.abs(mx[..., None] - TOOTH_EDGES), axis=-1)
    return np.exp(-((nearest / 0.009) ** 2)), np.exp(-((nearest / 0.022) ** 2))


def paint(
    under: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    texture: np.ndarray,
    identity: Identity,
    lips: Lips,
    mouth: Mouth,
    edges: Curves,
    direction: np.ndarray,
) -> np.ndarray:
    """The mouth over lit skin.

    ``under``: linear [h, w, 3]; ``x`` [w] and ``y`` [h] face units of the window's columns and rows; ``texture`` float32 [h, w] fine noise;
    ``direction`` to the key light. Gives linear [h, w, 3].
    """
    pixel = float(y[1] - y[0])
    soft = max(0.010, 1.3 * pixel)
    rows, t = y[:, None], edges.t[None]
    light = identity.light
    level = np.float32(light.key) * 0.62 + np.float32(light.sky) * 0.75
    half = mouth.half_width
    upper_outer, upper_inner = edges.upper_outer[None], edges.upper_inner[None]
    lower_inner, lower_outer = edges.lower_inner[None], edges.lower_outer[None]
    across = smoothstep(1.02, 0.97, np.abs(x) / half)[None]

    inside = smoothstep(-1.6 * soft, -0.6 * soft, np.minimum(rows - upper_inner, lower_inner - rows)) * across  # reaches under the lips
    picture = under
    if mouth.gap > 0.004:
        picture = _over(picture, _inside(x, y, identity, lips, mouth, edges, level), inside)

    # lips: normals roll over each lip's roll, light does the rest
    for upper in (True, False):
        outer, inner = (upper_outer, upper_inner) if upper else (lower_inner, lower_outer)
        thick = np.maximum(inner - outer, 1e-3)
        s = np.clip((rows - outer) / thick, 0, 1)
        alpha = smoothstep(-soft * 0.9, soft * 0.9, rows - outer) * smoothstep(-soft * 0.9, soft * 0.9, inner - rows)
        alpha *= smoothstep(0.0, 1.6 * soft, thick) * across
        if upper:
            slope = -0.18 + 0.85 * s**1.4
        else:
            slope = -0.62 + 1.05 * s**1.15
        slope = slope * (1 + 0.25 * mouth.roundness)
        wrinkle = texture[: y.size, : x.size] * (0.045 + 0.05 * identity.age) * np.sin(np.pi * s)
        side = t * 0.42 + wrinkle
        normal = cv2.merge([np.float32(np.broadcast_to(side, s.shape)), np.float32(slope), np.full(s.shape, 0.9, np.float32)])
        normal /= np.sqrt(np.sum(normal * normal, axis=2, keepdims=True))
        vermilion = np.float32(identity.lip_colour) * (0.86 if upper else 1.0)
        body = (1 - 0.10 * np.abs(texture[: y.size, : x.size]))[..., None] * vermilion
        # the wet inner part is redder and darker, the rim fades into the skin
        wet = (s if upper else 1 - s) ** 4
        body = body * (1 - wet[..., None] * np.float32([0.30, 0.45, 0.42]))
        rim = (1 - s if upper else s) ** 5
        body = body + (np.float32(identity.skin) * 0.9 - body) * (0.30 * rim)[..., None]
        lit = shade(np.float32(body), normal, None, light, direction, 0.10 + 0.30 * identity.lip_gloss, 4)
        near = 0.018 + 0.10 * thick
        gap_side = (inner - rows) if upper else (rows - outer)
        lit *= (1 - 0.62 * np.exp(-((np.maximum(gap_side, 0) / near) ** 2)) * (1 if upper else 0.75))[..., None]
        lit *= (1 - 0.35 * smoothstep(0.72, 1.0, np.abs(t)))[..., None]
        picture = _over(picture, lit, alpha)

    # where the lips meet: a dark line, darkest in the corners
    line = (upper_inner + lower_inner) / 2
    meet = np.exp(-(((rows - line) / max(0.0105, 0.8 * pixel)) ** 2)) * across * np.exp(-mouth.gap / 0.02) * (0.72 + 0.1 * lips.press)
    corner = np.exp(-(((np.abs(x)[None] - half) / 0.028) ** 2) - (((rows - line) / 0.020) ** 2)) * 0.55
    return picture * (1 - np.clip(np.maximum(meet, corner), 0, 0.9)[..., None] * np.float32([0.86, 1, 1]))


def _inside(x: np.ndarray, y: np.ndarray, identity: Identity, lips: Lips, mouth: Mouth, edges: Curves, level: np.ndarray) -> np.ndarray:
    """What is seen between the lips, linear [h, w, 3]."""
    rows, gap, half = y[:, None], mouth.gap, mouth.half_width
    pixel = float(y[1] - y[0])
    soft = max(0.012, 1.3 * pixel)
    top, bottom = edges.upper_inner[None], edges.lower_inner[None]
    down = np.clip((rows - top) / np.maximum(bottom - top, 1e-3), 0, 1)
    side = (np.abs(x) / half)[None]
    middle_top = mouth.middle_y - mouth.upper_lift
    middle_bottom = middle_top + gap
    # little light comes in: more through a wide gap
    into = 0.55 + 0.55 * min(1.0, gap / 0.12)
    flesh = np.float32([0.20, 0.055, 0.05]) * level
    cavity = flesh * ((0.10 + 0.42 * down**1.5) * (1 - 0.6 * side**2) * into)[..., None]

    raised = lips.tongue
    tongue_top = middle_bottom + 0.035 - (0.10 + 0.85 * raised) * gap - 0.01
    tongue_half = half * (0.74 - 0.12 * raised)
    bulge = 1 - np.clip(np.abs(x) / tongue_half, 0, 1) ** 2
    edge = tongue_top + 0.5 * gap * (1 - np.sqrt(bulge))[None] + 0.006 * np.exp(-((x / 0.03) ** 2))[None]
    tongue_alpha = smoothstep(-soft, soft, rows - edge) * smoothstep(1.0, 0.9, np.abs(x) / tongue_half)[None]
    below = np.clip((rows - edge) / 0.10, 0, 1)
    tone = (0.62 + 0.38 * np.sin(np.pi * np.clip(below * 0.8 + 0.12, 0, 1))) * (1 - 0.5 * side**2) * (0.35 + 0.65 * down**0.7) * into
    groove = 1 - 0.18 * np.exp(-((x / 0.022) ** 2))[None] * below
    tongue = np.float32([0.56, 0.205, 0.20]) * level * (tone * groove)[..., None]

    def row(edge_line: np.ndarray, upper: bool, scale: float) -> tuple[np.ndarray, np.ndarray]:
        dark, round_off = _gaps(x, scale)
        edge_y = edge_line + (-1 if upper else 1) * 0.016 * round_off * scale
        alpha = smoothstep(-soft / 2, soft / 2, (edge_y[None] - rows) if upper else (rows - edge_y[None]))
        alpha = alpha * smoothstep(0.46, 0.42, np.abs(x) / scale)[None]
        depth = np.clip(1 - 0.80 * (np.abs(x) / (0.46 * scale)) ** 2, 0.05, 1)[None]
        lip_shadow = 0.42 + 0.58 * smoothstep(0.0, 0.07, (rows - top) if upper else (bottom - rows))
        tone = depth * lip_shadow * (1 - 0.34 * dark[None]) * into * (0.95 if upper else 0.70)
        bite = 1 - 0.16 * smoothstep(0.05, 0.0, np.abs(edge_y[None] - rows))
        return np.float32(identity.tooth_colour) * level * (tone * bite)[..., None], alpha

    size = identity.mouth_width / 0.375
    lower_edge = middle_bottom - 0.115 * lips.lower_teeth
    lower, lower_alpha = row(np.full_like(x, lower_edge) + 0.02 * (x / 0.4) ** 2, False, 0.80 * size)
    upper_edge = middle_top + 0.015 + 0.150 * lips.upper_teeth - 0.045 * (x / 0.4) ** 2
    upper, upper_alpha = row(upper_edge, True, size)
    forward = float(smoothstep(0.55, 0.85, np.float32(raised)))
    result = _over(cavity, tongue, tongue_alpha * (1 - forward))
    result = _over(result, lower, lower_alpha)
    result = _over(result, tongue, tongue_alpha * forward)
    return _over(result, upper, upper_alpha)
