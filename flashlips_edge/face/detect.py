"""Face detectors: OpenCV's Haar cascade, or a YuNet file that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.quiet import set_opencv_log_level

HAAR_NEIGHBOURS = 3
SEARCH_SIDE_PX = 360  # the shorter side of the picture that the whole-frame search sees
EYE_BONUS = 4.0  # in units of the cascade's own weight: a face with an eye outranks a jacket without one
SCORE_KEEP = 0.7  # candidates this close to the best score compete by size


class Box(NamedTuple):
    """A face box: left, top, width, height in pixels of the frame, turned by ``angle`` about its centre, clockwise, in radians."""

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


class Detector(Protocol):
    """Anything that finds faces in a picture: RGB uint8 [H, W, 3] or luma uint8 [H, W]."""

    def __call__(self, image: np.ndarray) -> list[Box]: ...


def luma_of(image: np.ndarray) -> np.ndarray:
    """Grey picture uint8 [H, W] of an RGB or grey one."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


class HaarDetector:
    """OpenCV's frontal-face cascade; false hits are outvoted by the cascade's weight and by eyes found inside.

    Returns boxes largest first. ``min_size_px`` is the smallest face in pixels of the searched picture,
    whose shorter side is at most 360 px.
    """

    def __init__(self, min_size_px: int = 48) -> None:
        self._faces = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
        self._eyes = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_eye_tree_eyeglasses.xml")
        self._min_size_px = min_size_px

    def __call__(self, image: np.ndarray) -> list[Box]:
        luma = luma_of(image)
        scale = min(1.0, SEARCH_SIDE_PX / min(luma.shape))
        small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else luma
        size = (self._min_size_px, self._min_size_px)
        found, _, weights = self._faces.detectMultiScale3(small, 1.1, HAAR_NEIGHBOURS, minSize=size, outputRejectLevels=True)
        boxes = [Box(*(float(v) / scale for v in rectangle)) for rectangle in found]
        if len(boxes) < 2:
            return boxes
        scores = [float(w) + EYE_BONUS * self._has_eye(luma, box) for w, box in zip(weights, boxes)]
        best = max(scores)
        kept = [box for box, score in zip(boxes, scores) if score >= SCORE_KEEP * best]
        return sorted(kept, key=lambda box: -box.width)

    def _has_eye(self, luma: np.ndarray, box: Box) -> bool:
        x, y, width, height = (int(v) for v in box[:4])
        upper = luma[y : y + height * 6 // 10, x : x + width]
        scale = min(1.0, 160 / max(width, 1))
        upper = cv2.resize(upper, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else upper
        return len(self._eyes.detectMultiScale(upper, 1.1, 2)) > 0


class YuNetDetector:
    """OpenCV's YuNet with a model file that the user gives; turned faces are found too."""

    def __init__(self, model_path: str | Path) -> None:
        if not Path(model_path).is_file():
            raise UserError(f"--detector {model_path}: no such file; give a YuNet .onnx file or leave the option out")
        level = set_opencv_log_level()
        try:
            self._net = cv2.FaceDetectorYN.create(str(model_path), "", (320, 320), score_threshold=0.7)
            self(np.zeros((320, 320), np.uint8))  # any network can be opened, only a YuNet runs
        except cv2.error:
            raise UserError(f"--detector {model_path}: not a YuNet model; give a YuNet .onnx file or leave the option out") from None
        finally:
            set_opencv_log_level(level)

    def __call__(self, image: np.ndarray) -> list[Box]:
        bgr = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image[:, :, ::-1]
        scale = min(1.0, SEARCH_SIDE_PX / min(bgr.shape[:2]))
        small = cv2.resize(np.ascontiguousarray(bgr), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, faces = self._net.detect(small)
        boxes = [square(row[:4] / scale) for row in faces] if faces is not None else []
        return sorted(boxes, key=lambda box: -box.width)


def square(rectangle: Sequence[float] | np.ndarray) -> Box:
    """The Haar-like square of a tight, tall face rectangle: same centre line, from brow to chin."""
    x, y, width, height = (float(v) for v in rectangle)
    side = 1.02 * max(width, 0.8 * height)
    return Box(x + width / 2 - side / 2, y + 0.54 * height - side / 2, side, side)
