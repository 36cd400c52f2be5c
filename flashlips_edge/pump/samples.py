"""Sound that waits, in pieces as they came."""

from __future__ import annotations

from collections import deque

import numpy as np


class Samples:
    """float32 [n], first in first out; putting in costs the same however much waits. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._pieces: deque[np.ndarray] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, piece: np.ndarray) -> None:
        if len(piece):
            self._pieces.append(piece)
            self._count += len(piece)

    def take(self, count: int) -> np.ndarray:
        """The first ``count`` samples, or all there are."""
        parts: list[np.ndarray] = []
        while count > 0 and self._pieces:
            head = self._pieces.popleft()
            parts.append(head[:count])
            if len(head) > count:
                self._pieces.appendleft(head[count:])
            count -= len(parts[-1])
        taken = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        self._count -= len(taken)
        return taken

    def clear(self) -> None:
        self._pieces.clear()
        self._count = 0
