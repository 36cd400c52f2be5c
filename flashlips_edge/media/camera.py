"""Frames of a camera: a device, or a stream on the network."""

import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import cv2

from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, Clock, MonotonicClock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.mailbox import ClosedError, Mailbox

OPEN_NS = 15 * SECOND_NS  # until the first frame
READ_NS = 5 * SECOND_NS  # between two frames; after that the camera is lost
CLOSE_NS = 7 * SECOND_NS  # for a read under way to come back
SCHEMES = ("http://", "https://", "rtsp://", "rtsps://", "rtmp://", "udp://", "tcp://", "rtp://", "srt://")


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

    The iteration ends at `close` (from any thread), when the stream ends or when no frame comes for READ_NS.
    Raises UserError in one sentence naming `argument` and the source, and what was tried.
    """

    def __init__(self, source: int | str, clock: Clock | None = None, argument: str = "--camera"):
        self._name = f"{argument} {source}"
        self._source = _parse(source, argument)
        self._clock = clock or MonotonicClock()
        self._newest: Mailbox[Frame] = Mailbox(self._clock)
        self._stop = threading.Event()
        self._problem: str | None = None
        self._error: BaseException | None = None
        self.lost: str | None = None
        self.frame_rate = Fraction(25)
        self._thread = threading.Thread(target=self._read, name=self._name, daemon=True)
        self._thread.start()
        try:
            self._first: Frame | None = self._newest.get(OPEN_NS)
        except (ClosedError, TimeoutError):
            self.close()
            self._raise()
            problem = self._problem or f"it gave no frame in {OPEN_NS // SECOND_NS} s"
            raise UserError(f"{self._name}: {problem}; {_advice()}") from None
        self.width, self.height = self._first.width, self._first.height

    @property
    def counters(self) -> Counters:
        return self._newest.counters

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        while not self._stop.is_set():
            try:
                yield self._newest.get(READ_NS)
            except ClosedError:
                self._raise()
                if not self._stop.is_set():
                    self.lost = f"{self._name}: the stream ended"
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
        self._stop.set()
        self._newest.close()
        self._thread.join(CLOSE_NS / SECOND_NS)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        capture = None
        try:
            capture = _open(self._source)
            if not capture.isOpened():
                self._problem = f"it cannot be opened, {_tried(self._source)}"
                return
            rate = capture.get(cv2.CAP_PROP_FPS)
            if 1 <= rate <= 240:
                self.frame_rate = Fraction(rate).limit_denominator(1001)
            self._problem = "it was opened but gave no frame"
            while not self._stop.is_set():
                good, image = capture.read()
                if not good:
                    return
                self._newest.put(Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self._clock.now_ns()))
        except ClosedError:
            pass  # close() came while a frame was on its way
        except BaseException as error:  # raised again in the owner's thread
            self._error = error
        finally:
            if capture is not None:
                capture.release()
            self._newest.close()


def _parse(source: int | str, argument: str) -> int | str:
    text = str(source)
    if text.isdigit():
        return int(text)
    if text.startswith(SCHEMES):
        return text
    path = Path(text)
    if path.is_char_device():
        return text
    if path.is_file():
        raise UserError(f"{argument} {text}: this is a file; give a camera's index, device or URL here, a file to --avatar")
    raise UserError(f"{argument} {text}: there is no such device; {_advice()}")


def _open(source: int | str) -> cv2.VideoCapture:
    """The capture, without OpenCV's and FFmpeg's own words on standard error."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if isinstance(source, str) and source.startswith(SCHEMES):
        deadlines = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_NS // 1_000_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_NS // 1_000_000]
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, deadlines)
    return cv2.VideoCapture(source)


def _tried(source: int | str) -> str:
    if isinstance(source, str) and source.startswith(SCHEMES):
        return "tried FFmpeg"
    registry = cv2.videoio_registry
    backends = [registry.getBackendName(b) for b in registry.getCameraBackends()]
    return f"tried {', '.join(backends) or 'no backend: OpenCV was built without any'}"


def _advice() -> str:
    """What could be given instead."""
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    here = f"here are {', '.join(devices)}" if devices else "no /dev/video* is here"
    return f"give a camera's index, a device or a URL ({here})"
