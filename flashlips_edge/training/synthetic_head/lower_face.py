"""How skin moves with jaw and lips, and the shadows that move with it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from flashlips_edge.training.synthetic_head.fields import smoothstep
from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.lips import Curves, Lips, Mouth, curves, shape


def skin_source(
    identity: Identity, mouth_: Mouth, lips: Lips, edges: Curves, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
    for (y0, d0), (y1, d1) in pairwise(anchors):
        mix = np.clip((rows - y0) / np.maximum(y1 - y0, 0.02), 0, 1)
        shift = np.where(rows >= y0, d0 + (d1 - d0) * mix, shift)
    spread = mouth_.half_width - mouth_.rest_half_width
    pull = spread * np.sign(x) * np.clip(mx / mouth_.half_width, 0, 1) * np.exp(-((np.clip(mx - mouth_.half_width, 0, 9) / 0.22) ** 2))
    height = np.exp(-(((y - mouth_.middle_y - 0.4 * mouth_.gap) / 0.24) ** 2))
    hollow = 0.10 * mouth_.chin_drop * x * np.exp(-(((mx - 0.7) / 0.25) ** 2))
    from_x = x[None] - (pull[None] - hollow[None]) * height[:, None]
    return np.float32(from_x), np.float32(rows - shift)


def shadow(identity: Identity, mouth_: Mouth, lips: Lips, edges: Curves, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of light lost under the lower lip and in a smile's folds, at columns ``x`` [w] and rows ``y`` [h]: float32 [h, w]."""
    mx, rows = np.abs(x)[None], y[:, None]
    lip = np.exp(-(((rows - edges.lower_outer[None] - 0.035) / 0.045) ** 2)) * smoothstep(1.05, 0.5, mx / mouth_.half_width) * 0.26
    smile = 0.20 * max(lips.width, 0) * (1 - lips.round)
    line = mx - mouth_.half_width - 0.09 + 0.0875 * np.clip(identity.mouth_y - rows, -0.1, 1)
    fold = smile * np.exp(-((line / 0.028) ** 2) - 0.5 * ((rows - identity.mouth_y + 0.06) / 0.13) ** 2)
    return np.float32(lip + fold)
