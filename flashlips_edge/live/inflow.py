"""Pushed sound at the ear's rate and at the lips', kept in step with the ear by a source that runs a little fast or slow.

The lips' sound is made from the ear's, so that the two cannot drift apart.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import soxr

from flashlips_edge.pump.clock import SECOND_NS
from flashlips_edge.speech.features import SAMPLE_RATE_HZ

STEER = 0.015  # share by which sound is made shorter or longer at most: a quarter of a semitone, unheard in speech
TARGET_NS = 195_000_000  # how much sound of a live source shall wait for the ear
REACT_NS = 3 * SECOND_NS  # in which a deviation is made good
TOO_MUCH_NS = 100_000_000  # beyond the target, as after a process that stood still: pauses are shortened until it is made good
QUIET = 0.01  # of full scale
LIVE_SHARE = 0.05  # a source whose pace differs by less than this from the clock's is live; others are recordings or speech synthesis
AT_HAND_NS = 2 * SECOND_NS  # so is one that was ever this far ahead of the clock: it is held back, and so comes at the clock's pace
WATCHED_NS = 5 * SECOND_NS
LOOK_NS = 20_000_000  # between two looks at the pace, however small the pieces


class Inflow:
    """Sound at one rate, float32 [n] mono, as it comes. For one thread."""

    def __init__(self, sample_rate_hz: int, ear_hz: int):
        self.sample_rate_hz = sample_rate_hz
        self._ear_hz = ear_hz
        self._steered = 0.0
        self._restart()
        self._live = self._at_hand = False
        self._pushed_ns = 0
        self._first_ns: int | None = None  # clock time
        self._seen: deque[tuple[int, int, int]] = deque()  # clock time, sound pushed until then, sound waiting

    def push(self, samples: np.ndarray, now_ns: int, waiting_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """What there is for the ear and for the lips. `waiting_ns`: sound that waits for the ear already."""
        if not self._seen or now_ns - self._seen[-1][0] >= LOOK_NS:
            self._look(now_ns, waiting_ns)
        self._pushed_ns += len(samples) * SECOND_NS // self.sample_rate_hz
        if self._live and waiting_ns > TARGET_NS + TOO_MUCH_NS and np.abs(samples).max(initial=0.0) < QUIET:
            return np.zeros(0, np.float32), np.zeros(0, np.float32)  # a pause, shortened
        return self._both(samples, last=False)

    def flush(self) -> tuple[np.ndarray, np.ndarray]:
        """What is held back; what is pushed next begins anew."""
        held = self._both(np.zeros(0, np.float32), last=True)
        self._restart()
        return held

    @property
    def steer(self) -> float:
        """The share by which sound is made shorter now."""
        return self._steered

    def _look(self, now_ns: int, waiting_ns: int) -> None:
        """Whether the source is live, and by how much its sound is to be made shorter."""
        self._first_ns = now_ns if self._first_ns is None else self._first_ns
        lasted_ns = now_ns - self._first_ns
        self._at_hand |= self._pushed_ns - (1 + LIVE_SHARE) * lasted_ns > AT_HAND_NS
        self._seen.append((now_ns, self._pushed_ns, waiting_ns))
        while now_ns - self._seen[0][0] > 2 * WATCHED_NS:
            self._seen.popleft()
        since_ns, before_ns, _ = self._seen[0]
        if now_ns - since_ns > WATCHED_NS:
            pace = (self._pushed_ns - before_ns) / (now_ns - since_ns)
            waits_ns = float(np.median([waiting for *_, waiting in self._seen]))
            self._live = not self._at_hand and abs(pace - 1) < LIVE_SHARE
            self._steer((waits_ns - TARGET_NS) / REACT_NS if self._live else 0.0)

    def _both(self, samples: np.ndarray, last: bool) -> tuple[np.ndarray, np.ndarray]:
        ear = self._to_ear.resample_chunk(samples, last=last)
        return ear, self._to_lips.resample_chunk(ear, last=last)

    def _restart(self) -> None:
        self._to_ear = soxr.ResampleStream(self.sample_rate_hz * (1 + STEER), self._ear_hz, 1, dtype="float32", quality="HQ", vr=True)
        self._to_lips = soxr.ResampleStream(self._ear_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ", vr=True)
        self._steer(self._steered)

    def _steer(self, share: float) -> None:
        self._steered = min(max(share, -STEER), STEER)
        self._to_ear.set_io_ratio(self.sample_rate_hz * (1 + self._steered), self._ear_hz)
