"""Pictures whose pixels are wider than high, or higher than wide, made anew of square ones: what shows them live knows no others."""

from __future__ import annotations

from fractions import Fraction

import cv2

from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame


def square_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Width and height with square pixels: no side gets shorter. `pixel_aspect` is a pixel's width over its height."""
    if pixel_aspect == 1:
        return width, height
    return (2 * round(width * pixel_aspect / 2), height) if pixel_aspect > 1 else (width, 2 * round(height / pixel_aspect / 2))


def square(frame: Frame, pixel_aspect: Fraction) -> Frame:
    """The frame with square pixels; one that has them is given back as it is."""
    if pixel_aspect == 1:
        return frame
    width, height = square_size(frame.width, frame.height, pixel_aspect)
    squared = colour.empty_yuv(width, height, frame.tags)
    for to, plane in zip(colour.planes(squared), colour.planes(frame.yuv), strict=True):
        to[:] = cv2.resize(plane, to.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return Frame.of_yuv(squared, frame.pts_ns)
