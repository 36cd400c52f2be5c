"""Pictures of a face that speaks, each made shortly before it is to be seen."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from flashlips_edge.live.faces import Face
from flashlips_edge.live.ladder import Ladder
from flashlips_edge.live.speech_line import SpeechLine
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.mailbox import Mailbox
from flashlips_edge.pump.playback import Playback
from flashlips_edge.pump.recent import Recent
from flashlips_edge.talking.chain import Edited
from flashlips_edge.talking.editing import edit_mouths
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.target import Target

SLACK_NS = 12_000_000  # a picture is begun this long before it must be: threads do not wake on the dot
FIRST_GUESS_NS = 30_000_000  # how long a picture takes, until that is known
CLOSED_KEPT = 1024  # closed mouths of pictures that come again, 40 KB each

log = logging.getLogger("flashlips_edge")


@dataclass(frozen=True)
class Picture:
    """What is to be seen in tick `number`, which is what `frame.pts_ns` says in media time; `speaks` unless its mouth is at rest."""

    number: int
    frame: Frame
    speaks: bool


class PictureLine:
    """Makes the picture of every tick, or of as many as it can, into `ready`. One thread polls.

    Where editing fails the picture is shown as it was taken, and `problem` says why; where there is no face it is too.
    """

    def __init__(self, networks: Networks, face: Face, speech: SpeechLine, playback: Playback, clock: Clock):
        self.counters = Counters()  # ticks in, pictures out, dropped: ticks that no picture was made for
        self.problem: str | None = None
        self.edited = 0
        self.frame_ns = int(SECOND_NS / face.frame_rate)
        self.grace_ns = self.frame_ns // 2  # what is this late is shown late rather than left out
        self.took_ms = Recent(250)
        self.ladder = Ladder(self.frame_ns)
        self.ready: Mailbox[Picture] = Mailbox(clock, bound=2)
        self._networks, self._face, self._speech, self._playback, self._clock = networks, face, speech, playback, clock
        self._rate = face.frame_rate
        self._next = 0
        self._took = Recent(25)  # ns
        self._takes_ns = FIRST_GUESS_NS
        self._closed: dict[int, np.ndarray] = {}  # uint8 [S/2, S, 3], the lower half of a crop with closed lips, by the picture's index
        self._first_row = networks.crop_size // 2 - networks.crop_size // 32

    def due_ns(self, number: int) -> int:
        """When tick `number` is to be seen, in media time."""
        return number * self._rate.denominator * SECOND_NS // self._rate.numerator

    def tick_at(self, pts_ns: int) -> int:
        """The newest tick that is due at a media time."""
        return pts_ns * self._rate.numerator // (self._rate.denominator * SECOND_NS)

    def poll(self) -> int:
        """Make the next picture if it is time to; gives the nanoseconds until it is."""
        began_ns, now_ns = self._clock.now_ns(), self._playback.position_ns()
        number = max(self._next, self.tick_at(now_ns + self._takes_ns - self.grace_ns) + 1) if self._next else 0
        number += -number % self.ladder.every
        wait_ns = self.due_ns(number) - self._takes_ns - SLACK_NS - now_ns
        if wait_ns > 0 and number:
            return wait_ns
        skipped = number - self._next
        late = max(0, skipped - (self.ladder.every - 1))
        self._next = number + 1
        self.counters.entered += skipped + 1
        self.counters.dropped += skipped
        target = self._face.target(number)
        if target is not None:
            pts_ns = self.due_ns(number)
            lips = self._speech.mouth_at(pts_ns)
            self.ready.put(Picture(number, self._made(target, lips).at(pts_ns), lips is not None))
            self.counters.left += 1
        took_ns = self._clock.now_ns() - began_ns
        self._took.add(took_ns)
        self._takes_ns = int(self._took.percentile(75))
        self.took_ms.add(took_ns / 1e6)
        self.ladder.made(self._clock.now_ns(), took_ns, late)
        return 0

    def _made(self, target: Target, lips: np.ndarray | None) -> Frame:
        """The finished picture: with these lips, or with the mouth closed."""
        if target.crop is None:
            return target.frame
        try:
            edited = self._closed_mouth(target) if lips is None else self._edited(target, lips)
            self.problem = None
        except Exception as error:  # whatever an engine raises, a face stays on the screen
            self._fail(error)
            return target.frame
        return target.frame if edited is None else target.paint(edited)

    def _edited(self, target: Target, lips: np.ndarray) -> Edited:
        """The crop, float32 [S, S, 3], with these lips."""
        self.edited += 1
        face = self._face
        return edit_mouths(self._networks, [target], lips[None], face.identity(target), face.latents)[0]

    def _closed_mouth(self, target: Target) -> Edited | None:
        """The crop with closed lips. What an avatar's picture became is kept for when it comes again; None for a live one left as it is."""
        assert target.crop is not None
        if target.index is None and not self.ladder.edits_silence:
            return None
        if target.index is None or (known := self._closed.get(target.index)) is None:
            edited = self._edited(target, self._face.lips().closed)
            if target.index is not None and len(self._closed) < CLOSED_KEPT:
                self._closed[target.index] = np.clip(np.asarray(edited)[self._first_row :] + 0.5, 0, 255).astype(np.uint8)
            return edited
        edited = target.crop.image.astype(np.float32)
        edited[self._first_row :] = known
        return edited

    def _fail(self, error: Exception) -> None:
        sentence = f"a picture could not be edited and is shown as it was taken: {type(error).__name__}: {error}".splitlines()[0]
        if self.problem is None:
            log.error("edit failed", extra={"stage": "pictures", "reason": sentence})
        self.problem = sentence
