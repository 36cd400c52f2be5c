"""A thread that works items off: from a mailbox or an iterable, through a function, into a mailbox."""

import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any

from flashlips_edge.pump.clock import SECOND_NS
from flashlips_edge.pump.mailbox import ClosedError, Mailbox
from flashlips_edge.pump.thread import Thread

LOOK_NS = SECOND_NS // 5  # how often a waiting stage looks at its stop flag
JOIN_NS = 10 * SECOND_NS


class Stage:
    """Takes items from `source`, a mailbox or any iterable, and puts `work(item)` into `sink`, in a thread of its own.

        with Stage("decode", video, sink=decoded), Stage("encode", edited, writer.write):
            ...                                   # the main thread takes from `decoded` and puts into `edited`

    Whoever makes a stage owns it: starts it (`with` or `start`), stops and joins it. Its thread alone reads the source;
    an iterable's `close` is called at the end. When the source ends, the stage closes its sink and is done. When `work`
    fails or the stage is stopped it closes both sides, so that no neighbour waits for it. `join` raises what `work` raised.
    Leaving `with` normally joins; leaving it by an exception stops and joins.
    """

    def __init__(
        self,
        name: str,
        source: Mailbox | Iterable,
        work: Callable[[Any], Any] | None = None,
        sink: Mailbox | None = None,
    ):
        self.name = name
        self._source, self._work, self._sink = source, work, sink
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = Thread(name, self._run, self.stop)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The stage finishes the item it is at and ends; its mailboxes are closed."""
        self._stopping.set()
        self._close_both()

    @property
    def done(self) -> bool:
        """Whether its thread has ended."""
        return self._thread.over.is_set()

    def join(self, timeout_ns: int = JOIN_NS) -> None:
        """Wait for the end. Raises what `work` or the source raised, or TimeoutError if the stage is not done by then."""
        if not self._thread.wait(timeout_ns / SECOND_NS):
            raise TimeoutError(f"stage {self.name} is still working after {timeout_ns} ns")
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> "Stage":
        self.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.join()
            return
        self.stop()
        self._thread.wait(JOIN_NS / SECOND_NS)

    def _run(self) -> None:
        items = self._items()
        try:
            for item in items:
                made = item if self._work is None else self._work(item)
                if self._sink is not None and not self._hand_on(made, self._sink):
                    break
            if self._sink is not None:
                self._sink.close()
        except BaseException as error:  # raised again in the owner's thread, by join
            self._error = error
            self._close_both()
        finally:
            items.close()

    def _items(self) -> Generator[Any, None, None]:
        if isinstance(self._source, Mailbox):
            while not self._stopping.is_set():
                try:
                    yield self._source.get(LOOK_NS)
                except TimeoutError:
                    continue
                except ClosedError:
                    return
            return
        source = iter(self._source)
        try:
            for item in source:
                if self._stopping.is_set():
                    return
                yield item
        finally:
            if hasattr(source, "close"):
                source.close()

    def _hand_on(self, item: Any, sink: Mailbox) -> bool:
        """Whether the item got into the sink: not if somebody closed it."""
        while not self._stopping.is_set():
            try:
                sink.put(item, LOOK_NS)
                return True
            except TimeoutError:
                continue
            except ClosedError:
                if isinstance(self._source, Mailbox):
                    self._source.close()
                return False
        return False

    def _close_both(self) -> None:
        for side in (self._source, self._sink):
            if isinstance(side, Mailbox):
                side.close()
