"""The only way from one thread to another: a bounded queue with deadlines."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from flashlips_edge.pump.clock import Clock
from flashlips_edge.pump.counters import Counters

T = TypeVar("T")


class ClosedError(Exception):
    """The mailbox was closed: nothing more can be put in, or nothing is left to take out."""


class Mailbox(Generic[T]):
    """Holds at most `bound` items, the oldest first out.

    newest_wins: a full mailbox drops its oldest item for the new one (live sources); otherwise `put` waits for room
    (files, where nothing may be lost). `counters` tells what entered, left and was dropped. Any thread may call anything.
    """

    def __init__(self, clock: Clock, bound: int = 1, newest_wins: bool = True):
        if bound < 1:
            raise ValueError(f"bound is {bound}, it must be 1 or more")
        self.counters = Counters()
        self._clock, self._bound, self._newest_wins = clock, bound, newest_wins
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T, timeout_ns: int = 0) -> None:
        """Raises TimeoutError if there was no room until the deadline, ClosedError after `close`."""
        with self._changed:
            if not self._newest_wins:
                self._wait(lambda: len(self._items) < self._bound, timeout_ns)
            if self._closed:
                raise ClosedError
            if len(self._items) == self._bound:
                if not self._newest_wins:
                    raise TimeoutError(f"no room in the mailbox for {timeout_ns} ns")
                self._items.popleft()
                self.counters.dropped += 1
            self._items.append(item)
            self.counters.entered += 1
            self._changed.notify_all()

    def get(self, timeout_ns: int) -> T:
        """The oldest item. Raises TimeoutError if none came until the deadline, ClosedError if none is left after `close`."""
        with self._changed:
            self._wait(lambda: bool(self._items), timeout_ns)
            if self._items:
                self.counters.left += 1
                self._changed.notify_all()
                return self._items.popleft()
            if self._closed:
                raise ClosedError
            raise TimeoutError(f"nothing in the mailbox for {timeout_ns} ns")

    def close(self) -> None:
        """Whoever waits goes on at once; what is in the mailbox can still be taken out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], timeout_ns: int) -> None:
        deadline_ns = self._clock.now_ns() + timeout_ns
        while not (ready() or self._closed) and self._clock.now_ns() < deadline_ns:
            self._clock.wait(self._changed, deadline_ns)
