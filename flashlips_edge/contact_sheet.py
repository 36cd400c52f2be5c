"""A contact sheet: source and result frames, whole and close to the mouth, over the waveform they speak. Drawn with OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

COLUMN_PX, GAP_PX, LABEL_PX, MARGIN_PX = 220, 8, 84, 24
WAVE_PX = 150
PAPER, INK, FAINT, ACCENT, WAVE = (250, 249, 246), (40, 40, 44), (150, 150, 156), (196, 62, 40), (84, 116, 158)
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Column:
    """One moment: source and result, uint8 RGB [H, W, 3] of one size; mouth = left, top, right, bottom in pixels."""

    time_s: float
    source: np.ndarray
    result: np.ndarray
    mouth: tuple[int, int, int, int] | None


def contact_sheet(columns: list[Column], waveform: np.ndarray, sample_rate_hz: int, title: str, footer: str) -> np.ndarray:
    """The sheet, uint8 RGB: a row of sources, of results, of mouths before and after, and the waveform [N] with the moments marked."""
    height, width = columns[0].source.shape[:2]
    frame_px = round(COLUMN_PX * height / width)
    mouth_px = round(COLUMN_PX * 0.62)
    rows = [("source", frame_px), ("result", frame_px), ("mouth", mouth_px), ("result", mouth_px)]
    inner = len(columns) * (COLUMN_PX + GAP_PX) - GAP_PX
    total = 64 + sum(size + GAP_PX for _, size in rows) + 34 + WAVE_PX + 56
    sheet = np.full((total, MARGIN_PX * 2 + LABEL_PX + inner, 3), PAPER, np.uint8)
    _write(sheet, title, MARGIN_PX, 42, 0.8, INK)
    left, y = MARGIN_PX + LABEL_PX, 64
    for row, (label, size) in enumerate(rows):
        _write(sheet, label, MARGIN_PX, y + size // 2, 0.5, ACCENT if label == "result" else INK)
        for i, column in enumerate(columns):
            image = column.result if label == "result" else column.source
            part = image if row < 2 else _close_up(image, column.mouth, mouth_px / COLUMN_PX)
            x = left + i * (COLUMN_PX + GAP_PX)
            sheet[y : y + size, x : x + COLUMN_PX] = _resize(part, COLUMN_PX, size)
        y += size + GAP_PX
    _waveform(sheet, columns, waveform, sample_rate_hz, left, y + 26, inner)
    _write(sheet, footer, MARGIN_PX, total - 20, 0.5, FAINT)
    return sheet


def _waveform(sheet: np.ndarray, columns: list[Column], waveform: np.ndarray, rate_hz: int, left: int, top: int, width: int) -> None:
    duration_s = max(len(waveform) / rate_hz, 1e-6)
    middle = top + WAVE_PX // 2
    peak = max(float(np.abs(waveform).max(initial=0)), 1e-6)
    edges = np.linspace(0, len(waveform), width + 1).astype(int)
    for x, (start, end) in enumerate(pairwise(edges)):
        piece = waveform[start : max(end, start + 1)] / peak * (WAVE_PX // 2)
        if len(piece):
            sheet[middle - int(piece.max(initial=0)) : middle - int(piece.min(initial=0)) + 1, left + x] = WAVE
    for i, column in enumerate(columns):
        x = left + min(width - 1, round(column.time_s / duration_s * width))
        centre = left + i * (COLUMN_PX + GAP_PX) + COLUMN_PX // 2
        cv2.line(sheet, (centre, top - 26), (x, top - 4), FAINT, 1, cv2.LINE_AA)
        cv2.line(sheet, (x, top - 4), (x, top + WAVE_PX), ACCENT, 1, cv2.LINE_AA)
        _write(sheet, f"{column.time_s:.2f} s", min(x + 4, left + width - 48), top + WAVE_PX + 12, 0.4, INK)


def _close_up(image: np.ndarray, mouth: tuple[int, int, int, int] | None, aspect: float) -> np.ndarray:
    """The mouth's rectangle widened to the aspect (height over width); the whole picture's middle without one."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = mouth or (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    side = max(x1 - x0, (y1 - y0) / aspect)
    matrix = np.array([[1, 0, (x0 + x1 - side) / 2], [0, 1, (y0 + y1 - side * aspect) / 2]], np.float32)
    size = (max(2, round(side)), max(2, round(side * aspect)))
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)


def _resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = image.shape[1] >= width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _write(sheet: np.ndarray, text: str, x: int, y: int, scale: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(sheet, text, (x, y), FONT, scale, colour, 1, cv2.LINE_AA)
