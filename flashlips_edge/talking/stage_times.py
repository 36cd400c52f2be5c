"""Seconds spent in each stage of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


class StageTimes:
    """Adds up the time of named stages. Stages run in several threads, so the sum may exceed the run's own time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time inside the `with` block towards `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + elapsed

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the time that making each takes counts towards `name`."""
        source = iter(items)
        while True:
            with self.stage(name):
                item = next(source, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]

    def shares(self) -> dict[str, float]:
        """Each stage's share of the sum, 0 to 1."""
        with self._lock:
            total = sum(self.seconds.values()) or 1.0
            return {name: seconds / total for name, seconds in self.seconds.items()}
