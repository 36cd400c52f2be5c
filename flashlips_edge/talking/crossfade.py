"""One picture of a face passing into another of the same face: the face moves from its old place to its new one as it fades.

The surroundings fade where they are. The mouth is drawn by the editor afterwards, once, so that it never doubles.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import cos, sin

import cv2
import numpy as np

from flashlips_edge.face.detect import Box
from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame

FADE_S = Fraction(1, 5)
REACH = 1.0  # how far the moving part reaches from the face's centre, in box widths
FEATHER = 0.4  # share of that over which it passes into the surroundings
STEP_PX = 64  # its size is a multiple of this: masks are kept from tick to tick


def fade_ticks(frame_rate: Fraction) -> int:
    """How many pictures a fade takes: 200 ms of them, one at least."""
    return max(1, round(FADE_S * frame_rate))


def crossfade(old: Frame, old_box: Box | None, new: Frame, new_box: Box | None, share: float) -> tuple[Frame, Box | None]:
    """The picture between two of one size and colour, `share` of it (0 to 1) the new one's, and the face's box in it."""
    between = colour.empty_yuv(new.width, new.height, new.tags)
    sources = zip(colour.planes(between), colour.planes(old.yuv), colour.planes(new.yuv), strict=True)
    box = new_box
    if old_box is not None and new_box is not None:
        box = Box(*((1 - share) * a + share * b for a, b in zip(old_box, new_box)))
    for (to, before, after), step in zip(sources, (1, 2, 2)):
        cv2.addWeighted(before, 1 - share, after, share, 0, dst=to)
        if box is not None and old_box is not None and new_box is not None:
            _move(to, before, after, _shrunk(old_box, step), _shrunk(new_box, step), _shrunk(box, step), share)
    return Frame.of_yuv(between, new.pts_ns), box


def _move(to: np.ndarray, before: np.ndarray, after: np.ndarray, old: Box, new: Box, box: Box, share: float) -> None:
    """Draw the face of both planes at `box`, over what is there."""
    (x, y), side = box.centre, round(2 * REACH * box.width / STEP_PX) * STEP_PX
    whole_left, whole_top = round(x - side / 2), round(y - side / 2)
    left, top = max(0, whole_left), max(0, whole_top)
    right, bottom = min(to.shape[1], whole_left + side), min(to.shape[0], whole_top + side)
    if right <= left or bottom <= top:
        return
    size = right - left, bottom - top
    face = cv2.addWeighted(_aligned(before, old, box, left, top, size), 1 - share, _aligned(after, new, box, left, top, size), share, 0)
    weights = (mask[top - whole_top :, left - whole_left :][: size[1], : size[0]] for mask in _masks(side))
    part = to[top:bottom, left:right]
    part[:] = cv2.blendLinear(face, np.ascontiguousarray(part), *map(np.ascontiguousarray, weights))


def _aligned(plane: np.ndarray, source: Box, box: Box, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """The rectangle at left, top of the plane moved, scaled and turned such that its `source` comes to lie at `box`."""
    scale, angle = source.width / box.width, source.angle - box.angle
    linear = scale * np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])  # from there to the plane
    matrix = np.column_stack([linear, source.centre + linear @ (np.array([left, top]) - box.centre)])
    return cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)


def _shrunk(box: Box, step: int) -> Box:
    return Box(box.x / step, box.y / step, box.width / step, box.height / step, box.angle)


@lru_cache(maxsize=8)
def _masks(side: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [side, side]: 1 in the middle, smoothly 0 at the edge of a circle; and what is missing from it to 1."""
    along = (np.arange(STEP_PX, dtype=np.float32) + 0.5) * 2 / STEP_PX - 1
    t = np.clip((1 - np.hypot(along, along[:, None])) / FEATHER, 0, 1)
    mask = cv2.resize(t * t * (3 - 2 * t), (side, side))
    return mask, 1 - mask
