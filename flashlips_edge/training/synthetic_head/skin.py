"""The skin's colour: complexion, blush, freckles, shaved or grown beard, nostrils, brows' shadow."""

from __future__ import annotations

import numpy as np

from flashlips_edge.training.synthetic_head.anatomy import Relief
from flashlips_edge.training.synthetic_head.fields import Canvas, blur, bump, noise, smoothstep
from flashlips_edge.training.synthetic_head.identity import Identity


def albedo(identity: Identity, grid: Canvas, relief: Relief) -> np.ndarray:
    """Linear skin colour on the canvas: float32 [H, W, 3]."""
    rng = np.random.default_rng([11, identity.seed])
    x, y = grid.x, grid.y
    mx = np.abs(x)
    skin = np.float32(identity.skin)
    mottle = 1 + 0.014 * noise(grid, 0.20, rng) + 0.012 * noise(grid, 0.06, rng) + 0.022 * noise(grid, 0.02, rng)
    colour = mottle[..., None] * skin

    fair = float(np.sqrt(skin[0]))
    blush = (0.30 + 0.5 * identity.redness) * bump(mx, y, (0.58, 0.42), 0.20, 0.17)
    blush += (0.35 + 0.5 * identity.redness) * bump(mx, y, (0, identity.nose_y - 0.1), 0.15, 0.13)
    blush += 0.3 * bump(mx, y, (0, identity.chin_y - 0.18), 0.2, 0.12) + 0.4 * smoothstep(0.93, 1.0, mx) * bump(mx, y, (1.0, 0.2), 0.2, 0.4)
    blush = np.clip(blush, 0, 1) * (1 + 0.15 * noise(grid, 0.1, rng))
    colour = colour * (1 - blush[..., None] * np.float32([0.02, 0.20, 0.17]) * fair)
    shade = bump(mx, y, (identity.eye_x - 0.04, 0.10), 0.17, 0.07) * (0.10 + 0.16 * identity.age) + 0.10 * bump(
        mx, y, (0.22, 0.0), 0.07, 0.10
    )
    colour = colour * (1 - shade[..., None] * np.float32([0.8, 1.0, 0.85]))
    if identity.freckles > 0.03:
        spots = smoothstep(1.2, 1.9, noise(grid, 0.028, rng)) * bump(mx, y, (0.3, 0.4), 0.4, 0.25)
        colour = colour * (1 - min(0.5, identity.freckles) * spots[..., None] * np.float32([0.4, 0.6, 0.7]))
    if identity.age > 0.5:
        spots = smoothstep(1.7, 2.2, noise(grid, 0.06, rng)) * (identity.age - 0.5) * 0.5
        colour = colour * (1 - spots[..., None] * np.float32([0.3, 0.45, 0.5]))

    nostril = bump(mx, y - 0.22 * (mx - identity.nose_width * 0.5), (identity.nose_width * 0.50, identity.nose_y + 0.004), 0.044, 0.019)
    colour = colour * (1 - 0.88 * np.clip(nostril * 1.1, 0, 1)[..., None] * np.float32([0.93, 1, 1]))
    under = bump(mx, y, (0, identity.nose_y + 0.05), 0.15, 0.04) * 0.12 * identity.light.elevation
    wing = bump(mx, y, (identity.nose_width + 0.02, identity.nose_y - 0.06), 0.016, 0.06) * 0.28
    corner = bump(mx, y, (identity.mouth_width + 0.03, identity.mouth_y), 0.03, 0.03) * 0.25
    crease = relief.fold * (0.05 + 0.14 * identity.age)
    lower = bump(mx, y, (0, identity.mouth_y + identity.lower_lip + 0.055), 0.20, 0.04) * 0.20
    return np.float32(colour * (1 - (under + wing + corner + crease + lower)[..., None] * np.float32([0.8, 1, 1])))


def beard(identity: Identity, grid: Canvas, relief: Relief) -> np.ndarray | None:
    """Where beard covers the skin, 0..1 [H, W], with its strands; None without one."""
    if identity.beard == "none":
        return None
    rng = np.random.default_rng([13, identity.seed])
    mx, y = np.abs(grid.x), grid.y
    lip_top, chin = identity.mouth_y - identity.upper_lip, identity.chin_y
    wobble = 0.03 * noise(grid, 0.09, rng) + 0.02 * noise(grid, 0.03, rng)
    moustache = smoothstep(0.075, 0.03, np.abs(y - (lip_top - 0.055 + 0.26 * mx**1.5)) + wobble * 0.5 + 0.02) * smoothstep(
        0.50, 0.36, mx + wobble
    )
    cheek_line = identity.mouth_y - 0.10 + 0.16 - 0.95 * np.clip(mx - 0.45, 0, 1) ** 1.25
    jaw = smoothstep(-0.05, 0.09, y - cheek_line + wobble) * smoothstep(
        0.35, 0.52, mx + 0.9 * np.clip(y - identity.mouth_y - 0.1, 0, 1) + wobble
    )
    chin_part = smoothstep(0.30, 0.17, mx + wobble) * smoothstep(identity.mouth_y + 0.13, identity.mouth_y + 0.27, y + wobble)
    link = smoothstep(0.07, 0.03, np.abs(mx - 0.43) + wobble) * smoothstep(lip_top - 0.02, lip_top + 0.08, y)
    part = {
        "stubble": np.maximum.reduce([moustache, jaw, chin_part, link]) * 0.42,
        "moustache": moustache,
        "goatee": np.maximum.reduce([moustache, chin_part, link * smoothstep(chin, chin - 0.2, y)]),
        "full": np.maximum.reduce([moustache, jaw, chin_part, link]) * 0.95,
    }[identity.beard]
    strands = noise(grid._replace(x=grid.x * 1.6, y=grid.y * 0.8), 0.018, rng)
    patchy = np.clip(0.86 + 0.13 * strands + 0.07 * noise(grid, 0.25, rng), 0, 1)
    soft = blur(np.float32(part), 0.05 if identity.beard == "stubble" else 0.016, grid)
    return np.float32(np.clip(soft * patchy, 0, 1) * smoothstep(-0.01, 0.03, relief.inside))
