"""An iterator that works in its own thread, a few items ahead of the one who reads it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

POLL_S = 0.1  # how soon the thread notices that nobody reads any more
_END = object()


def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """The same items, made in a thread up to `depth` ahead; what it raises is raised here.

    The generator owns the thread: closing it, or leaving its loop, stops the thread and closes `items`.
    """
    ahead: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                ahead.put(item, timeout=POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        last: object = _END
        source = iter(items)
        try:
            for item in source:
                if not put((item,)):
                    break
        except BaseException as error:  # handed over to the reader, which raises it
            last = error
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        put(last)

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ahead.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item[0]  # type: ignore[index]
    finally:
        stop.set()
        thread.join()
