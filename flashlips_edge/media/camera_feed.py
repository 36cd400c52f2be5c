"""A camera that may go and come back: what is wrong with it has a name, and it is connected again."""

from __future__ import annotations

import threading
from typing import Literal

from flashlips_edge.errors import UserError
from flashlips_edge.media.capture import OPEN_NS, Capture, advice, parse, shown
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.letterbox import letterbox
from flashlips_edge.media.picture_watch import BLACK_NS, FROZEN_NS, PictureWatch
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.worker import Worker

LOST_NS = 2 * SECOND_NS  # without a frame
FIRST_BACKOFF_NS = SECOND_NS // 2
LAST_BACKOFF_NS = 10 * SECOND_NS
HANGING = 3  # reads that may hang in the driver at the same time; then none is added
CLOSE_NS = SECOND_NS  # for a read under way to come back

PROBLEMS = {
    "frozen": f"its picture has not changed for {FROZEN_NS // SECOND_NS} s",
    "black": f"its picture has been black for {BLACK_NS // SECOND_NS} s",
}


class CameraFeed:
    """The newest good frame of a camera, for as long as it is open, whatever becomes of the camera.

    source           an index (0, "0"), a device (/dev/video0), a URL (http, rtsp, ...), or a video that plays in a loop
    width, height    pixels of its first frame, for good: later frames of another size are put into it with black borders
    frame_rate       Fraction: what the camera said of itself at first, 25 if that is no use
    state            "live"; "lost": it ended, or no frame came for 2 s; "frozen": the same picture bit for bit for 3 s; "black" for 1 s
    problem          one sentence while the state is not "live", else None
    counters         frames in, out, and dropped: for a newer one, or because they were frozen or black
    reconnects       how often it came back after it was lost
    hung             how often a read never came back, and was left behind

    A lost camera is opened again after 0.5 s, then after twice as long each time, up to 10 s. Frozen and black frames are withheld,
    black ones from the first on. Two threads: one reads, one watches. Any thread may call anything.
    Raises UserError in one sentence naming `argument` and the source if there is no first frame.
    """

    def __init__(self, source: int | str, clock: Clock, argument: str = "--camera"):
        self._argument, self._name = argument, f"{argument} {shown(source)}"
        self._source, self._clock = parse(source, argument, files=True), clock
        self.state: Literal["live", "lost", "frozen", "black"] = "live"
        self.problem: str | None = None
        self.counters = Counters()
        self.reconnects = self.hung = 0
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._capture: Capture | None = None
        self._closed = False
        self._hanging: list[Capture] = []
        self._backoff_ns = FIRST_BACKOFF_NS
        self._worker = Worker(f"{self._name}, watch", self._look_after, clock)
        try:
            self._await_first()
        except BaseException:
            self.close()
            raise
        self._worker.start()

    def newest(self) -> Frame | None:
        """The newest frame not yet taken, None if there is none; never waits."""
        with self._changed:
            frame, self._newest = self._newest, None
            self.counters.left += frame is not None
            return frame

    def close(self) -> None:
        """Stop, and let the device go. A read that hangs in the driver is left behind."""
        with self._changed:
            self._closed = True
            capture, self._capture, self._newest = self._capture, None, None
        self._worker.stop()
        if capture is not None:
            capture.stop()
            capture.join(CLOSE_NS)
        self._worker.join(CLOSE_NS)

    def __enter__(self) -> CameraFeed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await_first(self) -> None:
        deadline_ns = self._clock.now_ns() + OPEN_NS
        with self._changed:
            capture = self._connect()
            while not (self.counters.entered or capture.over) and self._clock.now_ns() < deadline_ns:
                self._clock.wait(self._changed, deadline_ns)
            if self.counters.entered:
                return
        if capture.error is not None:
            raise capture.error
        problem = capture.problem if capture.over else f"{self._name}: it gave no frame in {OPEN_NS // SECOND_NS} s"
        raise UserError(f"{problem}; {advice()}")

    def _connect(self) -> Capture:
        self._watch = PictureWatch()
        self._allowed_ns = OPEN_NS  # until the next frame
        self._last_ns = self._clock.now_ns()
        self._capture = Capture(self._source, self._argument, self._clock, self._take, self._ended)
        return self._capture

    def _take(self, capture: Capture, frame: Frame) -> None:
        """A frame has come; called in the thread of its capture."""
        with self._changed:
            if capture is not self._capture:
                return
            watch = self._watch
            if not self.counters.entered:
                self.width, self.height, self.frame_rate = frame.width, frame.height, capture.frame_rate
        verdict = watch.look(frame)
        good = letterbox(frame, self.width, self.height) if verdict == "live" else None
        with self._changed:
            if capture is not self._capture:
                return
            self._last_ns, self._allowed_ns = frame.pts_ns, LOST_NS
            self._backoff_ns = FIRST_BACKOFF_NS
            self.counters.entered += 1
            if verdict is not None:
                self.reconnects += self.state == "lost"
                self.state = verdict
                self.problem = None if verdict == "live" else f"{self._name}: {PROBLEMS[verdict]}"
            if good is None or self._newest is not None:
                self.counters.dropped += 1
            if good is not None:
                self._newest = good
            self._changed.notify_all()

    def _ended(self) -> None:
        with self._changed:
            self._changed.notify_all()
        self._worker.wake()

    def _look_after(self) -> int:
        """The watch: notices a loss and connects again. Gives the nanoseconds until it must look again."""
        with self._changed:
            if self._closed:
                return LOST_NS
            now_ns = self._clock.now_ns()
            if self._capture is not None:
                left_ns = self._last_ns + self._allowed_ns - now_ns
                if not self._capture.over and left_ns > 0:
                    return left_ns
                self._lose(self._capture, now_ns)
            self._hanging = [capture for capture in self._hanging if capture.alive]
            if now_ns >= self._again_ns and len(self._hanging) < HANGING:
                self._connect()
                return self._allowed_ns
            return max(self._again_ns - now_ns, FIRST_BACKOFF_NS)

    def _lose(self, capture: Capture, now_ns: int) -> None:
        self.state = "lost"
        self.problem = capture.problem
        if not capture.over:
            self.problem = f"{self._name}: no frame came for {self._allowed_ns // SECOND_NS} s"
            self.hung += 1
            self._hanging.append(capture)
        capture.stop()
        self._capture = None
        self._again_ns = now_ns + self._backoff_ns
        self._backoff_ns = min(2 * self._backoff_ns, LAST_BACKOFF_NS)
