"""The square crop that the networks see, and pasting the edited mouth back without a seam."""

from __future__ import annotations

from functools import lru_cache
from math import cos, sin
from typing import NamedTuple

import cv2
import numpy as np

from flashlips_edge.face.detect import Box

CROP_SCALE = 1.25  # crop side in box widths
BLUR = 80  # the change is blurred by the crop's side over this
CHANGE_LOW, CHANGE_HIGH = 6.0, 24.0  # grey levels of change between which the frame's own fine detail fades out


class Crop(NamedTuple):
    """A face crop: ``image`` uint8 [S, S, 3] and ``transform`` float32 [2, 3] from frame to crop pixels."""

    image: np.ndarray
    transform: np.ndarray


class Region(NamedTuple):
    """A feathered superellipse in crop units (0 to 1): what paste may change."""

    centre_x: float = 0.5
    centre_y: float = 0.745
    radius_x: float = 0.34
    radius_y: float = 0.25
    feather: float = 0.3  # share of the radius over which the mask falls from 1 to 0


MOUTH = Region()


def cut(image: np.ndarray, box: Box, size: int) -> Crop:
    """Cut the square of 1.25 box widths around ``box``, turned as it is, out of an RGB frame, resized to ``size``; edges are repeated
    outside."""
    side = CROP_SCALE * box.width
    scale = size / side
    centre, middle = np.array(box.centre), (size - 1) / 2
    cosine, sine = scale * cos(box.angle), scale * sin(box.angle)
    linear = np.array([[cosine, sine], [-sine, cosine]])
    transform = np.column_stack([linear, middle - linear @ centre]).astype(np.float32)
    if scale < 0.6:  # bilinear sampling would alias: average first
        reach = half_extent(box)
        left, top = (int(max(0, v - reach - 4)) for v in centre)
        part = image[top : int(centre[1] + reach + 5), left : int(centre[0] + reach + 5)]
        shrink = scale * 1.2
        whole = tuple(max(1, round(n * shrink)) for n in (part.shape[1], part.shape[0]))  # else OpenCV samples at 1/shrink
        small = cv2.resize(part, whole, interpolation=cv2.INTER_AREA)
        step = np.array([part.shape[1] / small.shape[1], part.shape[0] / small.shape[0]])  # frame pixels in one of the small picture
        first = np.array([left, top]) - 0.5 + 0.5 * step  # the small picture's first pixel in the frame
        inner = np.column_stack([transform[:, :2] * step, transform[:, :2] @ first + transform[:, 2]])
        return Crop(_warp(small, inner, size), transform)
    return Crop(_warp(image, transform, size), transform)


def half_extent(box: Box) -> float:
    """Half the side, in frame pixels, of the upright square that holds the crop's square."""
    return CROP_SCALE * box.width / 2 * (abs(cos(box.angle)) + abs(sin(box.angle)))


def paste_patch(image: np.ndarray, crop: Crop, edited: np.ndarray, region: Region = MOUTH) -> tuple[int, int, np.ndarray]:
    """The changed rectangle of the frame: left, top and uint8 [h, w, 3]; the rest of the frame stays as it is.

    ``edited`` is [S, S, 3] in 0..255. Only the difference to the crop is carried over, so that where nothing changed the
    frame keeps its own fine detail; where the mouth moved, the detail of the old mouth fades out.
    """
    left, top, right, bottom = rectangle(image.shape, crop, region)
    if right <= left or bottom <= top:
        return 0, 0, image[:0, :0].copy()
    size = crop.image.shape[0]
    change = edited.astype(np.float32) - crop.image
    red, green, blue = cv2.split(np.abs(change))
    amount = cv2.GaussianBlur(cv2.max(cv2.max(red, green), blue), (0, 0), size / BLUR)
    mask = feather(size, region)
    replaced = np.clip((amount - CHANGE_LOW) / (CHANGE_HIGH - CHANGE_LOW), 0, 1) * mask
    back = crop.transform.astype(np.float64).copy()
    back[:, 2] += back[:, :2] @ (left, top)

    def in_frame(layer: np.ndarray, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(layer, back, (right - left, bottom - top), flags=flags, borderMode=border)

    # by OpenCV, whose passes over a large face take a quarter of NumPy's time
    source = image[top:bottom, left:right]
    detail = cv2.subtract(source, in_frame(crop.image, cv2.BORDER_REPLICATE), dtype=cv2.CV_32F)
    lost = cv2.multiply(detail, cv2.merge([in_frame(replaced)] * 3), dst=detail)
    added = cv2.subtract(in_frame(change * mask[:, :, None]), lost, dst=lost)
    return left, top, cv2.add(source, added, dtype=cv2.CV_8U)


def paste(image: np.ndarray, crop: Crop, edited: np.ndarray, region: Region = MOUTH) -> np.ndarray:
    """A copy of the RGB frame [H, W, 3] with the mouth region of ``edited`` [S, S, 3] (0..255) blended in."""
    left, top, patch = paste_patch(image, crop, edited, region)
    result = image.copy()
    result[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return result


def _warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def rectangle(shape: tuple[int, ...], crop: Crop, region: Region = MOUTH) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in an image of this shape of what a paste may change; nothing where right <= left or bottom <= top."""
    size, linear = crop.image.shape[0], crop.transform[:, :2].astype(np.float64)
    middle, radii = (np.array(pair) * size for pair in ((region.centre_x, region.centre_y), (region.radius_x, region.radius_y)))
    back = np.linalg.inv(linear)
    centre, reach = back @ (middle - crop.transform[:, 2]), np.abs(back) @ radii
    x, y = ((v - r, v + r) for v, r in zip(centre, reach))
    left, right = np.clip([np.floor(x[0]), np.ceil(x[1]) + 1], 0, shape[1]).astype(int)
    top, bottom = np.clip([np.floor(y[0]), np.ceil(y[1]) + 1], 0, shape[0]).astype(int)
    return int(left), int(top), int(right), int(bottom)


@lru_cache(maxsize=8)
def feather(size: int, region: Region = MOUTH) -> np.ndarray:
    """Blend weight float32 [S, S]: 1 inside, smoothly 0 at the region's edge."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    distance = (np.abs((x - region.centre_x) / region.radius_x) ** 3 + np.abs((y - region.centre_y) / region.radius_y) ** 3) ** (1 / 3)
    t = np.clip((1 - distance) / region.feather, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
