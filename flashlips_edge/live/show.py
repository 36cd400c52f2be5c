"""Shows the picture of each tick when its sound is heard: in time, or the last one again."""

from __future__ import annotations

from collections.abc import Callable

from flashlips_edge.live.picture_line import Picture, PictureLine
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.playback import Playback
from flashlips_edge.pump.recent import Recent

LOOK_NS = SECOND_NS // 500  # between two looks for a picture that is due


class Show:
    """Hands one frame to `out` in every tick, from the first picture on. One thread polls.

    offset_ms   by how much a picture's own time differs from the sound heard, each time it is shown speaking
    gap_ms      between two frames
    """

    def __init__(self, pictures: PictureLine, playback: Playback, clock: Clock, out: Callable[[Frame], None]):
        self.counters = Counters()
        self.offset_ms, self.gap_ms = Recent(), Recent()
        self.first_ns: int | None = None  # on the clock: when the first frame was shown
        self.shown_ns = 0  # ... and the newest
        self._pictures, self._playback, self._clock, self._out = pictures, playback, clock, out
        self._tick = 0
        self._last: Picture | None = None
        self._next: Picture | None = None

    def poll(self) -> int:
        """Show what is due; gives the nanoseconds until the next tick."""
        now_ns = self._playback.position_ns()
        due_ns = self._pictures.due_ns(self._tick)
        if now_ns < due_ns and self._last is not None:
            return due_ns - now_ns
        picture = self._newest(self._pictures.tick_at(now_ns))
        if picture is None and (self._last is None or now_ns < due_ns + self._pictures.grace_ns):
            return LOOK_NS  # it is on its way
        if picture is None:
            assert self._last is not None
            self.counters.repeated += 1
            frame = self._last.frame.at(due_ns)
        else:
            self.counters.late += picture.number < self._tick
            self._last = picture
            frame = picture.frame.at(max(due_ns, picture.frame.pts_ns))  # one that is late does not go back in time
        if self._last.speaks:
            self.offset_ms.add((now_ns - self._last.frame.pts_ns) / 1e6)
        self._hand_out(frame)
        self._tick = max(self._tick, self._pictures.tick_at(now_ns), picture.number if picture is not None else 0) + 1
        return max(0, self._pictures.due_ns(self._tick) - self._playback.position_ns())

    def _newest(self, tick: int) -> Picture | None:
        """The newest picture that is due, or None; older ones are dropped."""
        newest = None
        while True:
            if self._next is None:
                try:
                    self._next = self._pictures.ready.get(0)
                except TimeoutError:
                    return newest
            if self._next.number > tick and (newest is not None or self._last is not None):
                return newest
            if self._last is not None and self._next.number <= self._last.number:
                self._next = None
                self.counters.dropped += 1
                continue
            self.counters.dropped += newest is not None
            self.counters.entered += 1
            newest, self._next = self._next, None

    def _hand_out(self, frame: Frame) -> None:
        now_ns = self._clock.now_ns()
        if self.first_ns is None:
            self.first_ns = now_ns
        else:
            self.gap_ms.add((now_ns - self.shown_ns) / 1e6)
        self.shown_ns = now_ns
        self.counters.left += 1
        self._out(frame)
