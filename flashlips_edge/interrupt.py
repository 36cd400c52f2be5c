"""Ctrl-C, and a service manager's stop, as a request to finish."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupt:
    """While in the `with` block, the first SIGINT or SIGTERM sets `requested`; the second raises KeyboardInterrupt.

    So a file that is being written is never cut between two packets. For the main thread only.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
