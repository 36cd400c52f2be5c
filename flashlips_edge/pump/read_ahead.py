"""An iterator that works in its own thread, a few items ahead of the one who reads it."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import TypeVar

from flashlips_edge.pump.clock import MonotonicClock
from flashlips_edge.pump.mailbox import ClosedError, Mailbox
from flashlips_edge.pump.stage import LOOK_NS, Stage

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """The same items, made in a thread up to `depth` ahead; what making them raises is raised here.

    The generator owns the thread: closing it, or leaving its loop, stops the thread and closes `items`.
    """
    ahead: Mailbox[Item] = Mailbox(MonotonicClock(), depth, newest_wins=False)
    stage = Stage("read-ahead", items, sink=ahead)
    stage.start()
    try:
        while True:
            try:
                item = ahead.get(LOOK_NS)
            except TimeoutError:
                continue
            except ClosedError:
                break
            yield item
        stage.join()
    finally:
        stage.stop()
        with suppress(Exception):  # of items that nobody will read
            stage.join()
