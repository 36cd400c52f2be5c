"""The last few measurements of something, and what they say."""

from __future__ import annotations

import threading
from collections import deque


class Recent:
    """The newest `size` numbers. Any thread may call anything."""

    def __init__(self, size: int = 1500):
        self._values: deque[float] = deque(maxlen=size)
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        with self._lock:
            self._values.append(value)

    def __len__(self) -> int:
        return len(self._values)

    def percentile(self, percent: float) -> float:
        """0 while nothing was measured."""
        with self._lock:
            ordered = sorted(self._values)
        return ordered[round(percent / 100 * (len(ordered) - 1))] if ordered else 0.0

    @property
    def largest(self) -> float:
        with self._lock:
            return max(self._values, default=0.0)
