"""What waits to be sent to one client: put in by any thread, taken out in the event loop, bounded in every lane."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import Any


class ClosedError(Exception):
    """Nothing more will come."""


class Outbox:
    """Lanes of waiting items; `get` empties them in the order of their naming. A full lane drops its oldest item.

    bounds     items that may wait, by lane
    dropped    items that were thrown away for newer ones, over all lanes
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, bounds: dict[str, int]):
        self.dropped = 0
        self._loop = loop
        self._lanes: dict[str, deque[Any]] = {name: deque(maxlen=bound) for name, bound in bounds.items()}
        self._lock = threading.Lock()
        self._ready = asyncio.Event()
        self._waking = self._closed = False

    def put(self, lane: str, item: Any) -> None:
        """Any thread. After `close` the item goes nowhere."""
        with self._lock:
            if self._closed:
                return
            waiting = self._lanes[lane]
            self.dropped += len(waiting) == waiting.maxlen
            waiting.append(item)
            wake, self._waking = not self._waking, True
        if wake:
            self._wake()

    async def get(self) -> Any:
        """The next item. ClosedError after `close`, whatever still waits."""
        while True:
            with self._lock:
                if self._closed:
                    raise ClosedError
                for waiting in self._lanes.values():
                    if waiting:
                        return waiting.popleft()
                self._waking = False
                self._ready.clear()
            await self._ready.wait()

    def close(self) -> None:
        """Any thread. Whoever waits in `get` gets ClosedError."""
        with self._lock:
            self._closed = True
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._ready.set)
