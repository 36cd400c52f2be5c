"""A contact sheet: many people, each with several lips and poses, to be looked at."""

from __future__ import annotations

import numpy as np

from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.lips import Lips
from flashlips_edge.training.synthetic_head.pose import Pose
from flashlips_edge.training.synthetic_head.render import render

CELLS = (
    (Lips(), Pose()),
    (Lips(press=1.0), Pose(yaw=0.22)),
    (Lips(jaw=0.25, width=0.7, upper_teeth=0.8, lower_teeth=0.5), Pose(yaw=-0.22, gaze=0.3)),
    (Lips(jaw=0.65, upper_teeth=0.5), Pose(pitch=0.12)),
    (Lips(jaw=0.30, round=0.9, upper_teeth=0.2), Pose(pitch=-0.12, roll=0.08)),
    (Lips(jaw=0.25, tongue=0.95), Pose(brow=0.8)),
    (Lips(jaw=0.3, tuck=1.0, upper_teeth=0.6), Pose(blink=1.0)),
    (Lips(jaw=1.0, upper_teeth=0.5, lower_teeth=0.4), Pose(yaw=0.1, roll=-0.08)),
)


def contact_sheet(first_seed: int = 0, people: int = 16, cell: int = 160) -> np.ndarray:
    """uint8 RGB: two people per row, eight lips each, at ``cell`` pixels."""
    strips = [
        np.hstack([render(identity, pose, lips, (cell, cell)) for lips, pose in CELLS])
        for identity in map(Identity.from_seed, range(first_seed, first_seed + people))
    ]
    if len(strips) % 2:
        strips.append(np.zeros_like(strips[0]))
    return np.vstack([np.hstack(pair) for pair in zip(strips[::2], strips[1::2], strict=True)])
