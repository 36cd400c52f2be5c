"""Contact sheets: rows of pictures with a word beside each, written as PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flashlips_edge.files import atomic_path

Rows = list[tuple[str, list[np.ndarray]]]  # each a label and its pictures

LABEL_WIDTH_PX = 110
LABEL_HEIGHT_PX = 18
PAPER, INK = 255, (40, 40, 40)


def _write(image: np.ndarray, text: str, x: int, y: int) -> None:
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)


def sheet(rows: Rows, tile_px: int = 160, captions: list[str] | None = None) -> np.ndarray:
    """A uint8 RGB picture: each row a label and its pictures [h, w, 3] scaled to the tile's height; captions stand above the columns."""
    columns = max(len(pictures) for _, pictures in rows)
    head = LABEL_HEIGHT_PX if captions else 0
    page = np.full((head + tile_px * len(rows), LABEL_WIDTH_PX + tile_px * columns, 3), PAPER, np.uint8)
    for column, caption in enumerate(captions or []):
        _write(page, caption, LABEL_WIDTH_PX + column * tile_px + 4, 13)
    for row, (label, pictures) in enumerate(rows):
        top = head + row * tile_px
        for line, words in enumerate(label.split("\n")):
            _write(page, words, 4, top + 16 + 16 * line)
        for column, picture in enumerate(pictures):
            scale = tile_px / max(picture.shape[:2])
            size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
            left = LABEL_WIDTH_PX + column * tile_px
            page[top : top + small.shape[0], left : left + small.shape[1]] = small
    return page


def save(path: str | Path, picture: np.ndarray) -> None:
    """Writes a uint8 RGB picture as PNG; the folder is made where it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(Path(path)) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
