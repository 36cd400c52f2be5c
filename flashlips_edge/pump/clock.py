"""Time, as the session knows it: passed in, so that tests step it. Wall-clock time is never used."""

import threading
import time
from typing import Protocol

SECOND_NS = 1_000_000_000


class Clock(Protocol):
    def now_ns(self) -> int:
        """Nanoseconds since the clock was made; never goes back."""

    def wait(self, condition: threading.Condition, deadline_ns: int) -> None:
        """Wait on a held condition until it is notified or the deadline is reached; may also return early."""


class MonotonicClock:
    """The machine's monotonic clock, from 0 at its making."""

    def __init__(self) -> None:
        self._start_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() - self._start_ns

    def wait(self, condition: threading.Condition, deadline_ns: int) -> None:
        condition.wait(max(0, deadline_ns - self.now_ns()) / SECOND_NS)


class ManualClock:
    """Stands still until `advance`: then whoever waits looks at the time again."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._lock = threading.Lock()
        self._waiting: list[threading.Condition] = []

    def now_ns(self) -> int:
        with self._lock:
            return self._now_ns

    def advance(self, ns: int) -> None:
        with self._lock:
            self._now_ns += ns
            waiting = list(self._waiting)
        for condition in waiting:
            with condition:
                condition.notify_all()

    def wait(self, condition: threading.Condition, deadline_ns: int) -> None:
        with self._lock:
            if self._now_ns >= deadline_ns:
                return
            self._waiting.append(condition)
        try:
            condition.wait()
        finally:
            with self._lock:
                self._waiting.remove(condition)
