"""Frames of a camera: a device, or a stream on the network."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from types import TracebackType

from flashlips_edge.errors import UserError
from flashlips_edge.media.capture import OPEN_NS, READ_NS, Capture, advice, parse, shown
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, Clock, MonotonicClock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.mailbox import ClosedError, Mailbox

CLOSE_NS = 7 * SECOND_NS  # for a read under way to come back


class Camera:
    """The newest frame of a camera, again and again. A thread of its own reads; what is not taken in time is dropped.

        with Camera("0") as camera:
            for frame in camera:  # Frame; pts_ns: when it arrived, on `clock`
                ...
        print(camera.lost)        # one sentence if the camera stopped by itself, else None

    source               an index (0, "0"), a device (/dev/video0) or a URL (http, rtsp, ...)
    width, height        pixels
    frame_rate           Fraction: what the camera says of itself, 25 if that is no use
    counters             frames in, out, dropped

    The iteration ends at `close` (from any thread), when the stream ends or when no frame comes for READ_NS. For a camera that may
    go and come back: `CameraFeed`.
    Raises UserError in one sentence naming `argument` and the source, and what was tried.
    """

    def __init__(self, source: int | str, clock: Clock | None = None, argument: str = "--camera"):
        self._name = f"{argument} {shown(source)}"
        parsed = parse(source, argument, files=False)
        clock = clock or MonotonicClock()
        self._newest: Mailbox[Frame] = Mailbox(clock)
        self._closed = False
        self.lost: str | None = None
        self._capture = Capture(parsed, argument, clock, self._take, self._newest.close)
        try:
            self._first: Frame | None = self._newest.get(OPEN_NS)
        except (ClosedError, TimeoutError) as error:
            self.close()
            self._raise()
            slow = f"{self._name}: it gave no frame in {OPEN_NS // SECOND_NS} s"
            raise UserError(f"{slow if isinstance(error, TimeoutError) else self._capture.problem}; {advice()}") from None
        self.width, self.height = self._first.width, self._first.height

    @property
    def frame_rate(self) -> Fraction:
        return self._capture.frame_rate

    @property
    def counters(self) -> Counters:
        return self._newest.counters

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        while not self._closed:
            try:
                yield self._newest.get(READ_NS)
            except ClosedError:
                self._raise()
                if not self._closed:
                    self.lost = self._capture.problem
                return
            except TimeoutError:
                self.lost = f"{self._name}: no frame came for {READ_NS // SECOND_NS} s"
                return

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and let the device go. A read that hangs in the driver is left behind after CLOSE_NS."""
        self._closed = True
        self._capture.stop()
        self._newest.close()
        self._capture.join(CLOSE_NS)

    def _take(self, _: Capture, frame: Frame) -> None:
        with suppress(ClosedError):  # close() came while a frame was on its way
            self._newest.put(frame)

    def _raise(self) -> None:
        if self._capture.error is not None:
            raise self._capture.error
