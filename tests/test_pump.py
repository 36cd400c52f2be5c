"""The pump: time that is stepped, mailboxes that lose nothing in silence, stages that end."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.pump.clock import SECOND_NS, ManualClock, MonotonicClock
from flashlips_edge.pump.mailbox import ClosedError, Mailbox
from flashlips_edge.pump.stage import Stage


def in_thread(work) -> tuple[threading.Thread, list]:
    """A running thread and the list that gets what `work` gives or raises."""
    results: list = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def step_until_done(clock: ManualClock, thread: threading.Thread, limit_ns: int) -> int:
    """Let time pass until the thread ends; gives the time it took on the clock."""
    while thread.is_alive() and clock.now_ns() < limit_ns:
        clock.advance(SECOND_NS)
        thread.join(0.02)
    thread.join(10)
    assert not thread.is_alive()
    return clock.now_ns()


def test_the_monotonic_clock_starts_at_zero_and_rises():
    clock = MonotonicClock()
    first = clock.now_ns()
    assert 0 <= first <= clock.now_ns() < 60 * SECOND_NS


def test_the_newest_wins_and_every_drop_is_counted():
    mailbox = Mailbox[int](ManualClock())
    for i in range(5):
        mailbox.put(i)
    assert mailbox.get(0) == 4
    assert str(mailbox.counters) == "in 5, out 1, dropped 4, repeated 0, late 0"


@given(st.lists(st.one_of(st.integers(0, 9), st.none()), max_size=60), st.integers(1, 4))
def test_a_mailbox_is_a_queue_that_forgets_its_oldest(steps: list[int | None], bound: int):
    mailbox, model, dropped = Mailbox[int](ManualClock(), bound), [], 0
    for step in steps:
        if step is not None:
            mailbox.put(step)
            dropped += len(model) == bound
            model = [*model, step][-bound:]
        elif model:
            assert mailbox.get(0) == model.pop(0)
        else:
            with pytest.raises(TimeoutError):
                mailbox.get(0)
    counters = mailbox.counters
    assert counters.dropped == dropped
    assert counters.entered == counters.left + counters.dropped + len(model)


def test_get_waits_until_its_deadline_on_the_given_clock():
    clock = ManualClock()
    mailbox = Mailbox[int](clock)
    thread, results = in_thread(lambda: mailbox.get(5 * SECOND_NS))
    assert step_until_done(clock, thread, 100 * SECOND_NS) >= 5 * SECOND_NS
    assert isinstance(results[0], TimeoutError)


def test_a_full_mailbox_that_loses_nothing_makes_put_wait():
    clock = ManualClock()
    mailbox = Mailbox[int](clock, newest_wins=False)
    mailbox.put(1)
    thread, results = in_thread(lambda: mailbox.put(2, 5 * SECOND_NS))
    assert mailbox.get(0) == 1
    thread.join(10)
    assert results == [None] and mailbox.get(0) == 2 and mailbox.counters.dropped == 0
    mailbox.put(3)
    thread, results = in_thread(lambda: mailbox.put(4, 5 * SECOND_NS))
    step_until_done(clock, thread, 100 * SECOND_NS)
    assert isinstance(results[0], TimeoutError) and mailbox.get(0) == 3


def test_closing_wakes_whoever_waits_and_leaves_what_is_inside():
    mailbox = Mailbox[int](MonotonicClock())
    thread, results = in_thread(lambda: mailbox.get(60 * SECOND_NS))
    mailbox.close()
    thread.join(10)
    assert isinstance(results[0], ClosedError)
    with pytest.raises(ClosedError):
        mailbox.put(1)
    other = Mailbox[int](MonotonicClock())
    other.put(1)
    other.close()
    assert other.get(0) == 1
    with pytest.raises(ClosedError):
        other.get(0)


def queue_of(bound: int = 2) -> Mailbox[int]:
    return Mailbox[int](MonotonicClock(), bound, newest_wins=False)


def take_all(mailbox: Mailbox[int]) -> list[int]:
    taken = []
    while True:
        try:
            taken.append(mailbox.get(10 * SECOND_NS))
        except ClosedError:
            return taken


def test_stages_pass_everything_on_in_order():
    first, second = queue_of(), queue_of()
    with Stage("count", range(200), sink=first), Stage("double", first, lambda i: 2 * i, second):
        assert take_all(second) == [2 * i for i in range(200)]
    assert first.counters.dropped == 0


def test_an_error_in_a_stage_reaches_its_owner_and_ends_its_neighbours():
    first, second = queue_of(), queue_of()
    count = Stage("count", iter(range(10**9)), sink=first)
    divide = Stage("divide", first, lambda i: 1 // (3 - i), second)
    count.start()
    divide.start()
    assert take_all(second) == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        divide.join()
    count.join()


def test_an_error_in_the_source_reaches_the_owner():
    def source():
        yield 1
        raise OSError("the disk has gone")

    sink = queue_of()
    stage = Stage("read", source(), sink=sink)
    stage.start()
    assert take_all(sink) == [1]
    with pytest.raises(OSError, match="the disk has gone"):
        stage.join()


def test_stop_ends_a_stage_that_waits_and_closes_its_source():
    closed = threading.Event()

    def source():
        try:
            yield from range(10**9)
        finally:
            closed.set()

    sink = queue_of()
    stage = Stage("read", source(), sink=sink)
    stage.start()
    assert sink.get(10 * SECOND_NS) == 0
    stage.stop()
    stage.join()
    assert closed.is_set()


def test_leaving_by_an_exception_stops_the_stage():
    sink, source = queue_of(), queue_of()
    with pytest.raises(KeyError), Stage("idle", source, sink=sink):
        raise KeyError
    with pytest.raises(ClosedError):
        sink.get(10 * SECOND_NS)


def test_a_stage_that_hangs_is_named():
    release = threading.Event()
    source = queue_of()
    source.put(1)
    stage = Stage("stuck", source, lambda i: release.wait(30))
    stage.start()
    with pytest.raises(TimeoutError, match="stage stuck is still working"):
        stage.join(timeout_ns=1)
    release.set()
    stage.stop()
    stage.join()
