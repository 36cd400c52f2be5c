"""Where one scene dissolves into the next, as seen in the crops of a face that is followed."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

WINDOW_NS = 900_000_000
PATCH_PX = 16  # side of the picture that is compared
LIKENESS = 0.8  # correlation of the ends; two people are less alike, one who moves as evenly is more: benchmarks/dissolves.py
BEND = 0.33  # distance of the middle from the line between the ends, in lengths of it: a head that moves leaves it
MIDDLE = 0.25, 0.75  # where on that line it is; in a hard cut it is at an end


class Dissolves:
    """Dissolves of up to a second: the middle of a window is then a mixture of its two ends, which are unlike each other."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, np.ndarray]] = deque()

    def update(self, crop: np.ndarray, pts_ns: int) -> int | None:
        """When the window that ends with this face crop, uint8 [S, S, 3], begins, in ns, if one scene dissolves into another in it."""
        small = cv2.resize(crop, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA).mean(2, dtype=np.float32).ravel()
        self._seen.append((pts_ns, small))
        while len(self._seen) > 1 and self._seen[1][0] <= pts_ns - WINDOW_NS:
            self._seen.popleft()
        start_ns, before = self._seen[0]
        line, middle = small - before, self._seen[len(self._seen) // 2][1] - before
        length = float(line @ line)
        if start_ns > pts_ns - WINDOW_NS or not length or _likeness(before, small) > LIKENESS:
            return None
        share = float(middle @ line) / length
        bend = float(np.linalg.norm(middle - share * line)) / length**0.5
        return start_ns if MIDDLE[0] < share < MIDDLE[1] and bend < BEND else None


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures; with one that shows nothing, black, none."""
    if not one.std() or not other.std():
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
