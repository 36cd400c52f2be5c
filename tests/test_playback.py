"""The sound that is heard, whose position is the clock of everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import SteppedClock

from flashlips_edge.pump.playback import Metronome, Playback

SECOND = 1_000_000_000


@given(st.lists(st.integers(0, 700), max_size=20), st.lists(st.integers(1, 500), max_size=40))
def test_what_is_put_is_taken_once_in_order_and_then_there_is_silence(puts, takes):
    playback = Playback(SteppedClock(), 1000)
    given_samples = np.arange(1, sum(puts) + 1, dtype=np.float32)
    for piece in np.split(given_samples, np.cumsum(puts)[:-1]) if puts else []:
        playback.put(piece)
    taken = np.concatenate([playback.take(count) for count in takes] or [np.zeros(0, np.float32)])
    n = min(len(taken), len(given_samples))
    assert np.array_equal(taken[:n], given_samples[:n])
    assert not taken[n:].any()
    assert playback.taken == sum(takes)


def test_put_says_when_it_will_be_heard():
    playback = Playback(SteppedClock(), 1000)
    assert playback.put(np.ones(100, np.float32)) == 0
    assert playback.put(np.ones(100, np.float32)) == SECOND // 10
    assert playback.put(np.ones(100, np.float32), not_before_ns=SECOND) == SECOND
    playback.take(1200)
    assert playback.put(np.ones(10, np.float32)) == 1.2 * SECOND


@given(st.lists(st.tuples(st.integers(0, 60_000_000), st.integers(1, 60)), min_size=1, max_size=60))
def test_the_position_never_goes_back_and_never_passes_what_was_taken(steps):
    clock = SteppedClock()
    playback = Playback(clock, 1000)
    last = 0
    for elapsed_ns, count in steps:
        clock.ns += elapsed_ns
        assert last <= playback.position_ns() <= playback.taken * 1_000_000
        last = playback.position_ns()
        playback.take(count)
        assert last <= playback.position_ns() <= playback.taken * 1_000_000


def test_between_two_takes_the_position_goes_on_with_the_clock_less_the_latency():
    clock = SteppedClock()
    playback = Playback(clock, 48_000)
    playback.latency_ns = 5_000_000
    playback.take(480)
    clock.ns = 10_000_000
    playback.take(480)
    clock.ns = 18_000_000
    assert playback.position_ns() == 13_000_000


def test_a_flush_fades_out_and_forgets_the_rest():
    playback = Playback(SteppedClock(), 48_000)
    playback.put(np.ones(48_000, np.float32))
    playback.take(480)
    playback.flush()
    rest = playback.take(48_000)
    assert 0.9 < rest[0] <= 1 and np.all(np.diff(rest[:240]) <= 0)
    assert not rest[240:].any()


def test_a_metronome_keeps_its_pace_whenever_it_is_called():
    clock = SteppedClock()
    playback = Playback(clock, 48_000)
    metronome = Metronome(playback, clock)
    random = np.random.default_rng(0)
    for _ in range(2000):
        wait_ns = metronome.poll()
        assert wait_ns > 0
        clock.ns += int(random.choice([1, wait_ns // 2, wait_ns, 3 * wait_ns, 40 * wait_ns]))
    metronome.poll()
    assert 0 <= playback.taken - clock.ns * 48_000 // SECOND <= 960
    assert abs(playback.position_ns() - clock.ns) <= 21_000


def test_a_process_that_was_stopped_for_an_hour_does_not_catch_up_with_it():
    clock = SteppedClock()
    playback = Playback(clock, 48_000)
    metronome = Metronome(playback, clock)
    metronome.poll()
    clock.ns += 3600 * SECOND
    metronome.poll()
    assert playback.taken <= 2.1 * 48_000
    for _ in range(500):
        clock.ns += metronome.poll()
    assert playback.taken == pytest.approx((2 + 10) * 48_000, rel=0.01)


def test_a_metronome_goes_on_where_a_loudspeaker_left_off():
    clock = SteppedClock()
    playback = Playback(clock, 48_000)
    clock.ns = 7 * SECOND
    playback.take(48_000)  # the loudspeaker's clock was elsewhere
    metronome = Metronome(playback, clock)
    metronome.poll()
    clock.ns += SECOND
    metronome.poll()
    assert abs(playback.position_ns() - 2 * SECOND) < 21_000_000
