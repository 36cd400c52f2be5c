"""A thread that the program waits for when it ends: one that comes back from a network's code later would crash it."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable

EXIT_S = 10.0  # for all threads to come back, when the program ends

_begun: weakref.WeakSet[Thread] = weakref.WeakSet()


class Thread(threading.Thread):
    """Does `work` once. Whoever makes it owns it; `ask`, which asks it to end, is called too when the program ends before it.

    over   set once it has ended. `is_alive` does not tell: a join that Ctrl-C broke off makes Python take the thread for ended.
    """

    def __init__(self, name: str, work: Callable[[], object], ask: Callable[[], object]):
        super().__init__(name=name, daemon=True)
        self.over = threading.Event()
        self._work, self._ask = work, ask

    def start(self) -> None:
        _begun.add(self)
        super().start()

    def run(self) -> None:
        try:
            self._work()
        finally:
            self.over.set()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by then; never, where it asks itself."""
        if threading.current_thread() is not self and self.over.wait(seconds):
            self.join(seconds)
        return self.over.is_set()


@atexit.register
def _await_all() -> None:
    deadline = time.monotonic() + EXIT_S
    threads = [thread for thread in list(_begun) if not thread.over.is_set()]
    for thread in threads:
        thread._ask()
    for thread in threads:
        thread.over.wait(max(0.0, deadline - time.monotonic()))
