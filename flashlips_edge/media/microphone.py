"""Sound from a microphone, where there is one."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Any

import numpy as np

from flashlips_edge.media.audio_file import SPEECH_RATE_HZ
from flashlips_edge.media.portaudio import Line, probe
from flashlips_edge.pump.clock import SECOND_NS, Clock, MonotonicClock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.mailbox import ClosedError, Mailbox
from flashlips_edge.pump.worker import Worker

BLOCK = SPEECH_RATE_HZ // 50  # 20 ms
BLOCKS = 100  # two seconds wait for their reader at most; then the oldest are dropped
LOOK_NS = SECOND_NS // 2  # how often it is looked after
FIRST_BACKOFF_NS = SECOND_NS // 2
LAST_BACKOFF_NS = 10 * SECOND_NS


class Microphone:
    """The default input, mono at 16 kHz, while in the `with` block. PortAudio's thread puts, `read` takes.

    counters      blocks in, out, dropped
    lost          one sentence while the device has gone, else None
    reconnects    how often it came back

    A device that has gone is looked for again after 0.5 s, then after twice as long each time, up to 10 s; until then no block comes.
    """

    def __init__(self, clock: Clock | None = None):
        self.lost: str | None = None
        self.reconnects = 0
        self._clock = clock or MonotonicClock()
        self._blocks: Mailbox[np.ndarray] = Mailbox(self._clock, bound=BLOCKS)
        self._line: Line | None = None
        self._closed = False
        self._again_ns, self._backoff_ns = 0, FIRST_BACKOFF_NS
        self._worker = Worker("microphone, watch", self._look_after, self._clock)

    @property
    def counters(self) -> Counters:
        return self._blocks.counters

    def read(self, timeout_ns: int) -> np.ndarray:
        """The next block, float32 [320]. Raises TimeoutError if none comes until the deadline, ClosedError after the end."""
        return self._blocks.get(timeout_ns)

    def __enter__(self) -> Microphone:
        self._look_after()
        self._worker.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed = True
        self._blocks.close()
        self._worker.stop()
        if self._worker.join() and self._line is not None:
            self._line.close()

    def _look_after(self) -> int:
        """Open the device, or open it again; gives the nanoseconds until it must be looked after again."""
        now_ns = self._clock.now_ns()
        if self._line is not None:
            problem = self._line.lost
            if problem is None:
                self._backoff_ns = FIRST_BACKOFF_NS
                return LOOK_NS
            self._line.close()
            self._line = None
            return self._later(f"the microphone is lost: {problem}")
        if now_ns < self._again_ns:
            return self._again_ns - now_ns
        sounddevice, why = probe("input", SPEECH_RATE_HZ)
        if sounddevice is None:
            return self._later(why)
        try:
            self._line = Line(sounddevice, "input", SPEECH_RATE_HZ, BLOCK, self._clock, self._take)
        except (sounddevice.PortAudioError, ValueError) as error:
            return self._later(f"no microphone: it cannot be opened: {' '.join(str(error).split())}")
        if self._closed:
            self._line.close()
        self.reconnects += self.lost is not None
        self.lost = None
        return LOOK_NS

    def _later(self, problem: str | None) -> int:
        self.lost = problem
        wait_ns = self._backoff_ns
        self._again_ns = self._clock.now_ns() + wait_ns
        self._backoff_ns = min(2 * self._backoff_ns, LAST_BACKOFF_NS)
        return wait_ns

    def _take(self, samples: np.ndarray, status: Any) -> None:
        with suppress(ClosedError):  # one that was on its way at the end
            self._blocks.put(samples.copy())


def find(clock: Clock | None = None) -> Microphone | None:
    """The default microphone, or None where there is none; `why_none` says why."""
    return Microphone(clock) if why_none() is None else None


def why_none() -> str | None:
    """One sentence: what is missing for a microphone; None if nothing is."""
    return probe("input", SPEECH_RATE_HZ)[1]
