"""Threads that raise, hang and are started again."""

from __future__ import annotations

import threading

import pytest

from flashlips_edge.pump.clock import MonotonicClock
from flashlips_edge.pump.worker import HANGS, Worker

HANG_NS = 50_000_000


class Line:
    """Polled by a worker; does what it is told, and says when it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.called = threading.Semaphore(0)
        self.wait_ns = 0
        self.error: Exception | None = None
        self.gate: threading.Event | None = None

    def poll(self) -> int:
        self.calls += 1
        self.called.release()
        if self.gate is not None:
            self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return self.wait_ns

    def await_calls(self, count: int) -> None:
        for _ in range(count):
            assert self.called.acquire(timeout=10)


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def worker(line):
    worker = Worker("line", line.poll, MonotonicClock(), HANG_NS)
    yield worker
    if line.gate is not None:
        line.gate.set()
    worker.stop()
    assert worker.join(10_000_000_000)


def test_it_is_polled_again_and_again_until_it_is_stopped(line, worker):
    worker.start()
    line.await_calls(100)
    worker.stop()
    assert worker.join()
    assert worker.restarts == 0 and worker.problem is None


def test_a_wake_ends_a_long_wait(line, worker):
    line.wait_ns = 3600 * 1_000_000_000
    worker.start()
    line.await_calls(1)
    worker.wake()
    line.await_calls(1)


def test_what_raises_is_named_and_tried_again(line, worker):
    line.error = RuntimeError("no memory left\nsomewhere")
    worker.start()
    line.await_calls(3)
    assert worker.problem == "line failed: RuntimeError: no memory left"
    assert worker.restarts >= 2
    line.error, line.wait_ns = None, 20_000_000
    line.await_calls(1)
    assert worker.problem is not None  # still told, for those who look now and then
    line.await_calls(100)
    assert worker.problem is None


def test_what_hangs_is_left_behind_and_another_thread_goes_on(line, worker):
    recovered = threading.Event()
    worker._recover = recovered.set
    gate = line.gate = threading.Event()
    worker.start()
    line.await_calls(1)
    line.gate = None
    first = worker._thread
    while worker.restarts == 0:
        threading.Event().wait(0.01)
        worker.watch()
    assert recovered.is_set()
    line.await_calls(50)
    assert worker._thread is not first and first.is_alive()
    gate.set()  # the one left behind ends when its call returns, and does nothing more
    first.join(10)
    assert not first.is_alive()


def test_threads_left_behind_are_bounded(line, worker):
    before = threading.active_count()
    line.gate = threading.Event()
    worker.start()
    for _ in range(2000):
        threading.Event().wait(0.005)
        worker.watch()
        if worker.restarts == HANGS and worker.stuck and "given up" in (worker.problem or ""):
            break
    assert worker.restarts == HANGS
    assert "given up" in worker.problem
    assert threading.active_count() - before <= HANGS + 1


def test_stopping_does_not_wait_for_what_hangs(line, worker):
    line.gate = threading.Event()
    worker.start()
    line.await_calls(1)
    worker.stop()
    assert not worker.join(50_000_000)
