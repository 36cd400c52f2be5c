"""One picture of a face passing into another: the face moves, grows and tilts from its old place to its new one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flashlips_edge.face.detect import Box
from flashlips_edge.media.frames import Frame
from flashlips_edge.talking.crossfade import crossfade

WIDTH, HEIGHT = 480, 360


def picture(box: Box) -> np.ndarray:
    """A face of stripes that lies as the box does, on grey."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    right = ((x - box.centre[0]) * np.cos(box.angle) + (y - box.centre[1]) * np.sin(box.angle)) / box.width
    down = ((y - box.centre[1]) * np.cos(box.angle) - (x - box.centre[0]) * np.sin(box.angle)) / box.width
    inside = np.hypot(right, down) < 0.8
    return np.repeat(np.where(inside, 128 + 90 * np.sin(12 * down), 128)[:, :, None], 3, 2).astype(np.uint8)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_face_that_tilts_the_other_way_passes_through_what_is_between(share: float) -> None:
    old, new = Box(180, 130, 100, 100, 0.4), Box(200, 140, 110, 110, -0.3)
    frames = [Frame(picture(box)) for box in (old, new)]
    between, box = crossfade(frames[0], old, frames[1], new, share)
    assert box is not None and box.angle == pytest.approx((1 - share) * 0.4 - share * 0.3)
    middle = (slice(int(box.centre[1]) - 40, int(box.centre[1]) + 40), slice(int(box.centre[0]) - 40, int(box.centre[0]) + 40))
    found, wanted = (cv2.cvtColor(image[middle], cv2.COLOR_RGB2GRAY).astype(int) for image in (between.image, picture(box)))
    assert np.abs(found - wanted).mean() < 4
