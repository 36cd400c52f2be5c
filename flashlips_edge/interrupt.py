"""Ctrl-C, and a service manager's stop, as a request to finish."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

ENDED = 143  # exit status of a program that SIGTERM ended


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


def end_on_sigterm() -> None:
    """From now on SIGTERM ends the program in order, exit status 143: temporary folders go, workers are told. For the main thread only."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one must not break off what the first began
    sys.exit(ENDED)
