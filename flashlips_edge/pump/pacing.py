"""Showing frames when they are due."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flashlips_edge.pump.clock import Clock
from flashlips_edge.pump.worker import LOOK_NS


class Pace:
    """Holds frames back until their pts is reached on a clock; the first frame is due at once."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._start_ns: int | None = None
        self._turn = threading.Condition()

    def late_ns(self, pts_ns: int) -> int:
        """By how much the time of this pts has passed; negative before it."""
        if self._start_ns is None:
            self._start_ns = self._clock.now_ns() - pts_ns
        return self._clock.now_ns() - self._start_ns - pts_ns

    def wait(self, pts_ns: int, given_up: Callable[[], bool] = lambda: False) -> None:
        """Come back when this pts is due, or soon after it was `given_up`."""
        while (late_ns := self.late_ns(pts_ns)) < 0 and not given_up():
            with self._turn:
                self._clock.wait(self._turn, self._clock.now_ns() + min(-late_ns, LOOK_NS))
