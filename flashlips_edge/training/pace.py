"""How much of the recipes' schedules is run: all of it, a share of it, or as much as fits into minutes; and in what batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pace:
    """``share`` of the steps that a recipe names, or, with ``minutes``, as many steps as that much training of one network holds.

    With ``minutes`` the learning rate follows the time instead of the steps, and two runs do not end with the same weights.
    ``batch`` stands in for the preset's of the editor's stages, in each process.
    """

    share: float = 1.0
    minutes: float | None = None
    batch: int | None = None

    def of(self, count: int) -> int:
        """The share of a count, at least 1."""
        return max(1, round(self.share * count))

    def samples(self, preset: dict[str, Any]) -> int:
        """Samples of a step of the editor's stages."""
        return self.batch or preset["training"]["batch"]


WHOLE = Pace()
_PACE: ContextVar[Pace] = ContextVar("pace", default=WHOLE)  # a recipe passes on its own schedule alone; this comes from above it


def pace() -> Pace:
    """What holds here."""
    return _PACE.get()


@contextmanager
def at(new: Pace) -> Iterator[None]:
    """Every training inside the block goes at this pace."""
    token = _PACE.set(new)
    try:
        yield
    finally:
        _PACE.reset(token)
