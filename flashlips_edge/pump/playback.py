"""The sound that is being heard. Its position is the master clock: media time, which always runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.samples import Samples

LONGEST_NS = 2 * SECOND_NS  # taken at once, at most
FADE_NS = 5_000_000  # from sound to silence at an interruption, so that it does not click


class Playback:
    """A queue of samples that an output takes from, with silence where it is empty. Any thread may call anything.

    Positions are samples since the start, media time is the same in nanoseconds. `tap` is handed every block as it is taken, with
    its position, and must not block. `latency_ns` is the output's, from taking to the ear.
    """

    def __init__(self, clock: Clock, sample_rate_hz: int, tap: Callable[[np.ndarray, int], None] | None = None):
        self.sample_rate_hz = sample_rate_hz
        self.latency_ns = 0
        self._clock, self._tap = clock, tap
        self._lock = threading.Lock()
        self._queue = Samples()
        self._taken = 0
        self._block = 0  # samples of the last take, and when its first one left
        self._block_ns = clock.now_ns()
        self._heard = 0

    @property
    def taken(self) -> int:
        """The position up to which the output has taken sound."""
        return self._taken

    @property
    def queued_ns(self) -> int:
        """How much sound waits to be taken."""
        return len(self._queue) * SECOND_NS // self.sample_rate_hz

    def position_ns(self) -> int:
        """What is heard now, in media time; never goes back, and stands still while the output takes nothing."""
        with self._lock:
            return self._position() * SECOND_NS // self.sample_rate_hz

    def put(self, samples: np.ndarray, not_before_ns: int = 0) -> int:
        """Queue float32 [n]; gives the media time at which they will be heard: not before the given one, there is silence up to it."""
        with self._lock:
            end = self._taken + len(self._queue)
            gap = -(-not_before_ns * self.sample_rate_hz // SECOND_NS) - end
            if gap > 0:
                self._queue.put(np.zeros(gap, np.float32))
            start = self._taken + len(self._queue)
            self._queue.put(samples)
        return start * SECOND_NS // self.sample_rate_hz

    def take(self, count: int, late_ns: int = 0) -> np.ndarray:
        """The next `count` samples, float32, for the output. `late_ns`: how long ago the first of them was due."""
        with self._lock:
            start = self._taken
            block = np.zeros(count, np.float32)
            sound = self._queue.take(count)
            block[: len(sound)] = sound
            self._taken += count
            self._block, self._block_ns = count, self._clock.now_ns() - late_ns
        if self._tap is not None:
            self._tap(block, start)
        return block

    def flush(self) -> int:
        """Forget what is queued, but for a fade; gives the media time that is heard now."""
        with self._lock:
            fade = self._queue.take(FADE_NS * self.sample_rate_hz // SECOND_NS)
            self._queue.clear()
            self._queue.put(fade * np.linspace(1, 0, len(fade), dtype=np.float32))
            return self._position() * SECOND_NS // self.sample_rate_hz

    def _position(self) -> int:
        since = (self._clock.now_ns() - self._block_ns - self.latency_ns) * self.sample_rate_hz // SECOND_NS
        self._heard = max(self._heard, min(self._taken, self._taken - self._block + since))
        return self._heard


class Metronome:
    """An output without a device: takes from a playback what the clock says is due.

    Where it was not called for longer than LONGEST_NS (the process was stopped), media time stood still for the rest.
    """

    def __init__(self, playback: Playback, clock: Clock, block_ns: int = 20_000_000):
        self._playback, self._clock = playback, clock
        self._block = block_ns * playback.sample_rate_hz // SECOND_NS
        self._start = playback.taken
        self._start_ns = clock.now_ns()

    def poll(self) -> int:
        """Take what is due; gives the nanoseconds until there is more."""
        rate = self._playback.sample_rate_hz
        elapsed_ns = self._clock.now_ns() - self._start_ns
        done = self._playback.taken - self._start
        too_long_ns = elapsed_ns - done * SECOND_NS // rate - LONGEST_NS
        if too_long_ns > 0:
            self._start_ns += too_long_ns
            elapsed_ns -= too_long_ns
        due = elapsed_ns * rate // SECOND_NS
        if due < done:
            return max(1, done * SECOND_NS // rate - elapsed_ns)
        count = (due - done) // self._block * self._block + self._block
        self._playback.take(count, late_ns=elapsed_ns - done * SECOND_NS // rate)
        return max(1, (done + count) * SECOND_NS // rate - elapsed_ns)
