"""Who takes the sound: a loudspeaker while there is one, else a metronome. Media time runs either way."""

from __future__ import annotations

import logging

from flashlips_edge.media import loudspeaker
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.playback import Metronome, Playback

RETRY_NS = 5 * SECOND_NS
LOOK_NS = SECOND_NS // 5

log = logging.getLogger("flashlips_edge")


class SoundOut:
    """Polled by one thread. A loudspeaker that is lost is looked for again every five seconds; nothing is said twice or left out."""

    def __init__(self, playback: Playback, clock: Clock, wants_loudspeaker: bool):
        self.problem: str | None = None
        self._playback, self._clock, self._wants = playback, clock, wants_loudspeaker
        self._loudspeaker: loudspeaker.Loudspeaker | None = None
        self._metronome: Metronome | None = None
        self._retry_ns = 0

    def poll(self) -> int:
        """Take what is due, or see to it that somebody does; gives the nanoseconds until there is more to do."""
        if self._loudspeaker is not None:
            if self._loudspeaker.lost is None:
                self._playback.latency_ns = self._loudspeaker.latency_ns
                return LOOK_NS
            self._let_go(self._loudspeaker.lost)
        if self._wants and self._clock.now_ns() >= self._retry_ns and self._open():
            return LOOK_NS
        if self._metronome is None:
            self._metronome = Metronome(self._playback, self._clock)
        return self._metronome.poll()

    def close(self) -> None:
        if self._loudspeaker is not None:
            self._loudspeaker.close()

    def _open(self) -> bool:
        self._retry_ns = self._clock.now_ns() + RETRY_NS
        found = loudspeaker.find(self._playback.take, self._playback.sample_rate_hz, self._clock)
        if found is None:
            self.problem = loudspeaker.why_none() or "no loudspeaker: it is taken"
            return False
        self._loudspeaker, self._metronome, self.problem = found, None, None
        self._playback.latency_ns = found.latency_ns
        return True

    def _let_go(self, reason: str) -> None:
        log.warning("loudspeaker lost", extra={"stage": "sound out", "reason": reason})
        self.problem = reason
        if self._loudspeaker is not None:
            self._loudspeaker.close()
        self._loudspeaker = None
        self._playback.latency_ns = 0
        self._retry_ns = self._clock.now_ns() + RETRY_NS
