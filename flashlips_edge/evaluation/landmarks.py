"""The inner-lip opening of a face, read by OpenSeeFace's landmark network (BSD-2; for measuring only, never shipped)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnxruntime

from flashlips_edge.errors import UserError

MODEL_NAME = "openseeface_lm_model0_opt.onnx"
SIZE_PX = 224
CELLS = 28
N_POINTS = 66  # the 68-point scheme without points 60 and 64
UPPER_LIP, LOWER_LIP = 61, 64  # middle of the inner lips
OUTER_EYES = (36, 45)
LIPS = slice(48, N_POINTS)  # outer and inner contour
MARGIN = 1.35  # network input's side in widths of the face box
OFFSET_SHARPNESS = 16.0
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class Reading(NamedTuple):
    """`opening` = |61-64| / |36-45|; `points` float32 [66, 2] as x, y in image pixels; `confidence` 0..1, mean over the points."""

    opening: float
    points: np.ndarray
    confidence: float


def opening_of(points: np.ndarray) -> float:
    """Distance between the inner lips' middles over the distance between the outer eye corners; 0.12 to 0.14 on closed lips."""
    lips = np.linalg.norm(points[UPPER_LIP] - points[LOWER_LIP])
    eyes = np.linalg.norm(points[OUTER_EYES[0]] - points[OUTER_EYES[1]])
    return float(lips / max(float(eyes), 1e-6))


def lips_of(points: np.ndarray) -> np.ndarray:
    """Lip points [T, 18, 2] of points [T, 66, 2]: about their own middle, upright, in distances between the outer eye corners."""
    eyes = points[:, OUTER_EYES[1]] - points[:, OUTER_EYES[0]]  # [T, 2]
    distance = np.maximum(np.linalg.norm(eyes, axis=1), 1e-6)[:, None]
    right = eyes / distance
    down = np.stack([-right[:, 1], right[:, 0]], 1)
    lips = points[:, LIPS] - points[:, LIPS].mean(1, keepdims=True)
    return np.stack([(lips * axis[:, None]).sum(-1) / distance for axis in (right, down)], -1)


def decode(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (float32 [66, 2] as x, y in network pixels) and confidences (float32 [66]) from the output [198, 28, 28].

    198 = 66 heat maps, 66 row offsets, 66 column offsets; a point is its peak's cell plus the offset stored there as a logistic."""
    heat, offsets = maps[:N_POINTS].reshape(N_POINTS, -1), maps[N_POINTS:].reshape(2, N_POINTS, -1)
    peak = heat.argmax(1)
    every = np.arange(N_POINTS)
    p = np.clip(offsets[:, every, peak], 1e-6, 1 - 1e-6)  # [2, 66]
    offset_px = (SIZE_PX - 1) * np.log(p / (1 - p)) / OFFSET_SHARPNESS
    cell_px = np.stack([peak // CELLS, peak % CELLS]) * (SIZE_PX - 1) / (CELLS - 1)
    rows, columns = cell_px + offset_px
    return np.stack([columns, rows], 1).astype(np.float32), heat[every, peak].astype(np.float32)


class LipReader:
    """Reads the opening of one face per call; holds one single-threaded ONNX Runtime session."""

    def __init__(self, models_folder: str | Path):
        self.folder = Path(models_folder).resolve()
        path = self.folder / MODEL_NAME
        if not path.is_file():
            raise UserError(f"--models {models_folder} holds no {MODEL_NAME}; it must be the folder of the landmark network.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self._input_name = self._session.get_inputs()[0].name
        except Exception:  # ONNX Runtime has no common base class for its own
            raise UserError(f"--models {models_folder}: {MODEL_NAME} is damaged or no network; copy it there again.") from None

    def __call__(self, image: np.ndarray, box: Sequence[float]) -> Reading:
        """The reading of the face in `box` (x, y, width, height in pixels; a Haar-like square) of an RGB uint8 image [H, W, 3]."""
        x, y, width, height = (float(v) for v in box[:4])
        side = MARGIN * max(width, height)
        left, top = x + (width - side) / 2, y + (height - side) / 2
        scale = (SIZE_PX - 1) / side
        to_input = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]], np.float32)
        crop = cv2.warpAffine(image, to_input, (SIZE_PX, SIZE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        tensor = ((crop.astype(np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)[None]  # [1, 3, 224, 224]
        (maps,) = self._session.run(None, {self._input_name: tensor})
        points, confidences = decode(maps[0])
        points = (points / scale + np.array([left, top], np.float32)).astype(np.float32)
        return Reading(opening_of(points), points, float(confidences.mean()))
