"""Whoever has sound faster than it is heard, a file or a synthesised voice, waits for room before it pushes more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.worker import LOOK_NS

AHEAD_NS = 4 * SECOND_NS  # of sound that wait to be heard, where more is at hand


class Listener(Protocol):
    @property
    def waiting_ns(self) -> int: ...

    @property
    def closed(self) -> bool: ...


def wait_for_room(face: Listener, clock: Clock, given_up: Callable[[], bool] = lambda: False) -> None:
    """Until less than AHEAD_NS of sound waits to be heard, or the session is closed, or ``given_up``."""
    turn = threading.Condition()
    while face.waiting_ns > AHEAD_NS and not face.closed and not given_up():
        with turn:
            clock.wait(turn, clock.now_ns() + LOOK_NS)
