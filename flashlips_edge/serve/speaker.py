"""Text to the face's mouth: one text after another through a TTS voice, in a thread of its own, until somebody interrupts."""

from __future__ import annotations

import logging
import threading

from flashlips_edge.live.room import wait_for_room
from flashlips_edge.pump.clock import SECOND_NS, MonotonicClock
from flashlips_edge.pump.mailbox import Mailbox
from flashlips_edge.pump.stage import Stage
from flashlips_edge.session import LipSync
from flashlips_edge.tts.program import ProgramError
from flashlips_edge.tts.voice import Voice

WAITING = 8  # texts
CLOSE_NS = 2 * SECOND_NS

log = logging.getLogger(__name__)


class Speaker:
    """Owns the voice and the thread in which it speaks. Any thread may call anything.

    problem    one sentence while the voice does not work, else None; of what was to be said it holds nothing
    """

    def __init__(self, session: LipSync, voice: Voice):
        self.problem: str | None = None
        self._session, self._voice = session, voice
        self._turn = threading.Lock()
        self._interruptions = 0
        self._clock = MonotonicClock()
        self._texts: Mailbox[tuple[int, str]] = Mailbox(self._clock, bound=WAITING, newest_wins=False)
        self._stage = Stage("voice", self._texts, self._say)
        self._stage.start()

    def say(self, text: str) -> bool:
        """False if too many texts wait already."""
        try:
            self._texts.put((self._interruptions, text))
        except TimeoutError:
            return False
        return True

    def interrupt(self) -> None:
        """What is being said, and all that waits, is said no further."""
        with self._turn:
            self._interruptions += 1
            self._voice.stop()

    def close(self) -> None:
        self.interrupt()
        self._stage.stop()
        try:
            self._stage.join(CLOSE_NS)
        except TimeoutError:  # its thread ends with the process
            log.warning("voice hangs")

    def _say(self, item: tuple[int, str]) -> None:
        interruptions, text = item
        try:
            for pcm, sample_rate_hz in self._voice.say(text):
                wait_for_room(self._session, self._clock, lambda: interruptions != self._interruptions)
                with self._turn:  # nothing is pushed once `interrupt` has returned
                    if interruptions != self._interruptions:
                        return
                    self._session.push_audio(pcm, sample_rate_hz)
            self._session.say_silence()
            self.problem = None
        except Exception as error:  # a voice that fails once may speak the next text
            told = error.told if isinstance(error, ProgramError) else type(error).__name__
            self.problem = f"the voice failed: {told}"
            log.warning("voice failed", extra={"reason": told})
