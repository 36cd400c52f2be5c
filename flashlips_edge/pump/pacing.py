"""Showing frames when they are due."""

from __future__ import annotations

import threading

from flashlips_edge.pump.clock import Clock


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

    def wait(self, pts_ns: int) -> None:
        """Come back when this pts is due."""
        while (late_ns := self.late_ns(pts_ns)) < 0:
            with self._turn:
                self._clock.wait(self._turn, self._clock.now_ns() - late_ns)
