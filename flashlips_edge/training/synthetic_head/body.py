"""What is below and behind the head: neck, shoulders, clothes, and the backdrop."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from flashlips_edge.training.synthetic_head.fields import along, smoothstep
from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.light import key_direction, shade

SIDE, TOP, BOTTOM = 3.4, 0.7, 4.6  # what the body's canvas covers, face units


@lru_cache(maxsize=24)
def body(identity: Identity, density: float) -> np.ndarray:
    """Neck, shoulders and clothes: premultiplied linear colour and coverage, float32 [H, W, 4]."""
    rng = np.random.default_rng([23, identity.seed])
    x = ((np.arange(round(2 * SIDE * density)) + 0.5) / density - SIDE).astype(np.float32)[None]
    y = ((np.arange(round((BOTTOM - TOP) * density)) + 0.5) / density + TOP).astype(np.float32)[:, None]
    soft = max(0.03, 1.5 / density)
    light, direction = identity.light, key_direction(identity.light)
    shape = (y.size, x.size)
    mx = np.abs(x)

    neck_width = (0.60 - 0.14 * identity.femininity) * (0.6 + 0.4 * identity.jaw_width)
    chin = identity.chin_y
    neck_half = neck_width + 0.05 * np.clip(chin - y, 0, 1) + 0.75 * np.clip(y - chin - 0.28, 0, 2) ** 1.6
    neck_cover = smoothstep(-soft / 2, soft / 2, neck_half - mx)
    across = np.clip(x / neck_half, -1, 1)
    normal = np.dstack([np.broadcast_to(across * 0.95, shape), np.full(shape, 0.12), np.sqrt(np.clip(1 - (across * 0.95) ** 2, 0.05, 1))])
    tendon = (
        0.10
        * np.exp(-(((mx - (neck_width - 0.16) * np.clip(1 - (y - chin) * 0.9, 0.15, 1)) / 0.07) ** 2))
        * smoothstep(chin, chin + 0.4, y)
    )
    normal[..., 0] += tendon * np.sign(x) * 1.4
    skin = np.broadcast_to(np.float32(identity.skin), (*shape, 3)).astype(np.float32) * np.float32([0.88, 0.84, 0.84])
    under_chin = 0.24 + 0.76 * smoothstep(
        chin - 0.12, chin + 0.42 + 0.1 * identity.light.elevation, y + 0.30 * mx**2 - 0.12 * direction[0] * x
    )
    under_chin = np.broadcast_to(under_chin, shape).astype(np.float32)
    lit = shade(skin, np.float32(normal), under_chin, light, direction, 0.05)

    shoulder_y = chin + 0.52
    collar_x = neck_width + 0.16
    top_edge = along([(0, shoulder_y + 0.10), (collar_x, shoulder_y - 0.10), (1.1, shoulder_y + 0.16), (identity.shoulder * 0.82, shoulder_y + 0.36),
                      (identity.shoulder, shoulder_y + 0.72), (identity.shoulder * 1.08, shoulder_y + 1.5), (SIDE, shoulder_y + 3)], mx)  # fmt: skip
    cut = {
        "crew": shoulder_y + 0.20 - 0.30 * np.clip(mx / collar_x, 0, 1.2) ** 2,
        "vee": shoulder_y + 0.75 - 0.85 * np.clip(mx / collar_x, 0, 1.2),
        "shirt": shoulder_y + 0.36 - 0.50 * np.clip(mx / collar_x, 0, 1.2),
        "jacket": shoulder_y + 0.30 - 0.44 * np.clip(mx / collar_x, 0, 1.2),
        "hood": shoulder_y + 0.16 - 0.34 * np.clip(mx / collar_x, 0, 1.2) ** 2,
    }[identity.collar]
    edge = np.maximum(top_edge, np.where(mx < collar_x * 1.05, cut, -9))
    cloth_cover = np.broadcast_to(smoothstep(-soft / 2, soft / 2, y - edge), shape)

    weave = cv2.resize(np.float32(rng.standard_normal((shape[0] // 2 + 2, shape[1] // 2 + 2))), shape[::-1], interpolation=cv2.INTER_LINEAR)
    folds = cv2.resize(np.float32(rng.standard_normal((7, 12))), shape[::-1], interpolation=cv2.INTER_CUBIC)
    nx = np.broadcast_to(np.clip(x / (identity.shoulder * 1.15), -0.95, 0.95), shape) + 0.16 * np.gradient(folds, axis=1) * density * 0.35
    ny = np.clip(-0.75 + 0.65 * (y - top_edge), -0.75, 0.12) + 0.10 * np.gradient(folds, axis=0) * density * 0.35
    cloth_normal = np.dstack([nx, ny, np.full(shape, 0.75)])
    cloth_normal /= np.linalg.norm(cloth_normal, axis=2, keepdims=True)
    colour = np.broadcast_to(np.float32(identity.cloth), (*shape, 3)).copy()
    second = np.float32(identity.cloth_second)

    def lay(mask: np.ndarray, paint: np.ndarray) -> None:
        colour[:] = colour + (paint - colour) * np.broadcast_to(mask, shape)[..., None]

    crevice = np.ones(shape, np.float32)
    if identity.collar == "crew":
        band = smoothstep(0.13, 0.10, y - edge) * (mx < collar_x * 1.2)
        crevice *= 1 - 0.25 * np.exp(-(((y - edge - 0.125) / 0.02) ** 2)) * (mx < collar_x * 1.1)
        lay(band * 0.35, np.float32(identity.cloth) * 0.6)
    elif identity.collar == "shirt":
        wing = smoothstep(0.0, 0.02, 0.20 + 0.55 * np.clip(1 - mx / collar_x, 0, 1) - (y - edge)) * smoothstep(1.25, 1.15, mx / collar_x)
        lay(wing * 0.25, np.float32([0.9, 0.9, 0.9]))
        crevice *= 1 - 0.40 * np.exp(-(((wing - 0.4) / 0.3) ** 2)) * smoothstep(1.25, 1.05, mx / collar_x)
        crevice *= 1 - 0.35 * np.exp(-(((x - 0.03) / 0.02) ** 2)) * smoothstep(0.0, 0.2, y - edge - 0.2)
        buttons = sum(np.exp(-(((x + 0.03) ** 2 + (y - shoulder_y - 0.75 - 0.6 * k) ** 2) / 0.0011)) for k in range(4))
        lay(np.clip(buttons, 0, 1) * 0.7, np.float32([0.7, 0.7, 0.68]))
    elif identity.collar == "jacket":
        lapel = 0.10 + 0.60 * np.clip((shoulder_y + 2.0 - y) / 2.0, 0, 1)
        shirt = smoothstep(0.02, -0.02, mx - lapel)
        lay(shirt, np.float32([0.62, 0.63, 0.66]) if identity.seed % 2 else second)
        crevice *= 1 - 0.5 * np.exp(-(((mx - lapel) / 0.035) ** 2))
        crevice *= 1 - 0.35 * np.exp(-(((mx - lapel - 0.30 + 0.12 * (y - shoulder_y)) / 0.02) ** 2)) * smoothstep(1.2, 0.9, y - shoulder_y)
        if identity.femininity < 0.5 and identity.seed % 3:
            tie = smoothstep(0.0, 0.02, 0.07 + 0.045 * (y - shoulder_y - 0.3) - mx) * smoothstep(0.30, 0.33, y - shoulder_y + 0.1)
            lay(tie, second * 0.7)
    elif identity.collar == "hood":
        fade = smoothstep(1.3, 0.9, mx / collar_x)
        crevice *= 1 - 0.40 * np.exp(-(((y - edge - 0.20) / 0.035) ** 2)) * fade
        lay(smoothstep(0.20, 0.0, y - edge) * fade * 0.35, np.float32(identity.cloth) * 0.5)
    else:
        crevice *= 1 - 0.3 * np.exp(-(((y - edge - 0.07) / 0.015) ** 2)) * (mx < collar_x)
    if identity.collar in ("crew", "vee") and identity.seed % 5 == 0:
        lay(0.8 * smoothstep(-0.2, 0.2, np.sin(y * 18)), second)
    crevice *= 1 + 0.05 * weave
    cloth = shade(np.float32(colour), np.float32(cloth_normal), crevice, light, direction, 0.0)
    # the collar throws a soft shadow on the neck
    near = smoothstep(0.16, 0.0, edge - y) * 0.35
    lit = lit * (1 - np.broadcast_to(near, shape)[..., None])
    picture = lit + (cloth - lit) * cloth_cover[..., None]
    total = np.maximum(neck_cover, cloth_cover)
    return np.float32(np.dstack([picture * total[..., None], total]))


@lru_cache(maxsize=64)
def backdrop(identity: Identity, size: tuple[int, int]) -> np.ndarray:
    """What is behind the person, out of focus: linear float32 [H, W, 3]."""
    rng = np.random.default_rng([29, identity.seed])
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width, y / height
    first, second = np.float32(identity.backdrop_colour), np.float32(identity.backdrop_second)
    spot = np.exp(-(((x - 0.5 - 0.35 * rng.uniform(-1, 1)) ** 2 + (y - 0.35) ** 2) / 0.45))
    picture = first * (0.72 + 0.38 * spot)[..., None]
    if identity.backdrop == "gradient":
        mix = smoothstep(0.0, 1.0, y * rng.uniform(0.6, 1) + x * rng.uniform(-0.4, 0.4))
        picture = picture + (second * 0.8 - picture) * mix[..., None]
    elif identity.backdrop == "bokeh":
        picture = picture * 0.45
        for _ in range(26):
            cx, cy, r = rng.random(), rng.random(), rng.uniform(0.03, 0.10)
            disc = smoothstep(1.12, 0.86, np.hypot(x - cx, (y - cy) * height / width) / r)
            glow = (second if rng.random() < 0.5 else first) * rng.uniform(0.3, 0.9) + rng.uniform(0, 0.10)
            picture = picture + disc[..., None] * glow * 0.35
    elif identity.backdrop == "room":
        for _ in range(9):
            left, top, w, h = rng.uniform(-0.2, 1), rng.uniform(-0.2, 0.9), rng.uniform(0.08, 0.5), rng.uniform(0.08, 0.7)
            box = (x > left) & (x < left + w) & (y > top) & (y < top + h)
            tone = (first if rng.random() < 0.5 else second) * rng.uniform(0.35, 1.3)
            picture = np.where(box[..., None], tone, picture)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.04 * min(size))
    level = np.mean(identity.light.sky) * 0.9 + 0.45
    grain = cv2.GaussianBlur(np.float32(rng.standard_normal((height, width))), (0, 0), 0.7)[..., None] * 0.01
    return np.float32(np.clip(picture * level * (1 + grain), 0, 1))
