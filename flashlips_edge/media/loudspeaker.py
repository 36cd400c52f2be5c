"""Sound to a loudspeaker, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.media.portaudio import Line, probe
from flashlips_edge.pump.clock import Clock, MonotonicClock

SAMPLE_RATE_HZ = 48_000
BLOCK_MS = 10


class Loudspeaker:
    """The default output, mono, from its making to `close`. PortAudio's thread pulls 10 ms at a time.

    pull(n)       float32 [n], the next samples; must not wait. If it raises there is silence, and the loudspeaker counts as lost
    latency_ns    from pull to the ear, as the device says
    underruns     how often the device was left without sound
    lost          one sentence once the device has gone, else None. It does not come back by itself: close it, and `find` again

    Raises UserError in one sentence if there is no output, or if it is taken.
    """

    def __init__(self, pull: Callable[[int], np.ndarray], sample_rate_hz: int = SAMPLE_RATE_HZ, clock: Clock | None = None):
        sounddevice, problem = probe("output", sample_rate_hz)
        if sounddevice is None:
            raise UserError(problem)
        self.underruns = 0
        self._pull = pull
        self._failure: str | None = None
        self._closed = False
        block = sample_rate_hz * BLOCK_MS // 1000
        try:
            self._line = Line(sounddevice, "output", sample_rate_hz, block, clock or MonotonicClock(), self._fill)
        except (sounddevice.PortAudioError, ValueError) as error:
            raise UserError(f"no loudspeaker: it cannot be opened: {_one_line(error)}") from None
        self.latency_ns = self._line.latency_ns

    @property
    def lost(self) -> str | None:
        problem = self._failure or self._line.lost
        return None if problem is None or self._closed else f"the loudspeaker is lost: {problem}"

    def close(self) -> None:
        """Silent at once; never hangs."""
        if not self._closed:
            self._closed = True
            self._line.close()

    def __enter__(self) -> Loudspeaker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self, samples: np.ndarray, status: Any) -> None:
        self.underruns += bool(status.output_underflow)
        try:
            samples[:] = self._pull(len(samples))
        except Exception as error:  # it would end the stream without a word
            samples[:] = 0
            self._failure = f"its sound could not be had, {type(error).__name__}: {_one_line(error)}"


def find(pull: Callable[[int], np.ndarray], sample_rate_hz: int = SAMPLE_RATE_HZ, clock: Clock | None = None) -> Loudspeaker | None:
    """The default output, or None where there is none or it is taken; `why_none` says why."""
    try:
        return Loudspeaker(pull, sample_rate_hz, clock)
    except UserError:
        return None


def why_none(sample_rate_hz: int = SAMPLE_RATE_HZ) -> str | None:
    """One sentence: what is missing for a loudspeaker; None if nothing is."""
    return probe("output", sample_rate_hz)[1]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
