"""A thread that polls a line of work, is watched, and starts again after it raised or hung."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.thread import Thread

LOOK_NS = SECOND_NS // 4  # longest wait between two looks at the stop flag
FIRST_BACKOFF_NS = SECOND_NS // 10
LAST_BACKOFF_NS = 5 * SECOND_NS
WELL_NS = SECOND_NS  # for this long a problem that is over is still told, so that those who look now and then see it
HANGS = 8  # threads left behind in a call that does not return; then the worker is given up

log = logging.getLogger("flashlips_edge")


class Worker:
    """Calls `poll` until `stop`; `poll` gives the nanoseconds until it wants to be called again, `wake` calls it sooner.

    A poll that raises is called again after a pause that doubles; one that does not return within `hang_ns` is left behind, its
    thread ends when it does return, and a new thread goes on (`watch`, called by whoever owns the worker). `recover` is called
    before a new thread starts. `restarts` counts both; `problem` says what is wrong, while it is and a second longer.
    """

    def __init__(
        self,
        name: str,
        poll: Callable[[], int],
        clock: Clock,
        hang_ns: int = 2 * SECOND_NS,
        recover: Callable[[], None] | None = None,
    ):
        self.name = name
        self.restarts = 0
        self.problem: str | None = None
        self._poll, self._clock, self._hang_ns, self._recover = poll, clock, hang_ns, recover
        self._changed = threading.Condition()
        self._woken = self._stopping = False
        self._generation = 0
        self._since_ns = 0  # when the poll under way began; 0 while none is
        self._troubled_ns = 0  # when it last failed or hung
        self._left_behind: list[Thread] = []
        self._thread: Thread | None = None

    def start(self) -> None:
        self._thread = Thread(self.name, partial(self._run, self._generation), self.stop)
        self._thread.start()

    def wake(self) -> None:
        """Poll now."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, timeout_ns: int = 2 * SECOND_NS) -> bool:
        """Whether the thread has ended by then; one that hangs is left to the process."""
        return self._thread is None or self._thread.wait(timeout_ns / SECOND_NS)

    def forgive(self, still_ns: int) -> None:
        """For so long nothing in the process could run: the poll under way took that much less."""
        with self._changed:
            if self._since_ns:
                self._since_ns = min(self._since_ns + still_ns, self._clock.now_ns())

    @property
    def stuck(self) -> bool:
        """Whether it hangs now, or was given up."""
        with self._changed:
            return self._hangs() or self._given_up()

    def watch(self) -> None:
        """Leave a thread that hangs behind, and start another."""
        with self._changed:
            self._left_behind = [thread for thread in self._left_behind if not thread.over.is_set()]
            if self._stopping or self._thread is None or not self._hangs():
                return
            self.problem = f"{self.name} gave no answer for {self._hang_ns / SECOND_NS:g} s"
            if self._given_up():
                self.problem += f", {HANGS} times; it was given up"
                return
            self._left_behind.append(self._thread)
            self._generation += 1
            self._since_ns = 0
            self._troubled_ns = self._clock.now_ns()
            self.restarts += 1
        log.error("%s hangs and is started again", self.name, extra={"stage": self.name, "restarts": self.restarts})
        if self._recover is not None:
            self._recover()
        self.start()

    def _hangs(self) -> bool:
        return self._since_ns > 0 and self._clock.now_ns() - self._since_ns > self._hang_ns

    def _given_up(self) -> bool:
        return len(self._left_behind) >= HANGS

    def _run(self, generation: int) -> None:
        backoff_ns = FIRST_BACKOFF_NS
        while True:
            with self._changed:
                if self._stopping or generation != self._generation:
                    return
                self._woken = False
                self._since_ns = max(1, self._clock.now_ns())
            try:
                wait_ns = self._poll()
                problem = None
            except Exception as error:
                wait_ns, problem = backoff_ns, f"{self.name} failed: {_sentence(error)}"
            with self._changed:
                if generation != self._generation:
                    return
                self._since_ns = 0
                if problem is not None:
                    self.restarts += 1
                    backoff_ns = min(2 * backoff_ns, LAST_BACKOFF_NS)
                    self._woken = False
                    self._troubled_ns = self._clock.now_ns()
                else:
                    backoff_ns = FIRST_BACKOFF_NS
                if problem is not None or self._clock.now_ns() - self._troubled_ns > WELL_NS:
                    self.problem = problem
            if problem is not None:
                log.error("%s", problem, extra={"stage": self.name, "restarts": self.restarts, "reason": problem})
                if self._recover is not None:
                    self._recover()
            self._wait(wait_ns, generation)

    def _wait(self, wait_ns: int, generation: int) -> None:
        deadline_ns = self._clock.now_ns() + wait_ns
        with self._changed:
            while not (self._woken or self._stopping or generation != self._generation):
                now_ns = self._clock.now_ns()
                if now_ns >= deadline_ns:
                    return
                self._clock.wait(self._changed, min(deadline_ns, now_ns + LOOK_NS))


def _sentence(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
