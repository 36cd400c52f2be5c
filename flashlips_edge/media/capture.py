"""Reading a camera in a thread of its own: a device through OpenCV, a stream of the network through FFmpeg, or a file."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import cv2

from flashlips_edge.errors import UserError
from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.opening import decode
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.quiet import set_opencv_log_level

OPEN_NS = 15 * SECOND_NS  # until the first frame
READ_NS = 5 * SECOND_NS  # between two frames of a stream
SCHEMES = ("http://", "https://", "rtsp://", "rtsps://", "rtmp://", "udp://", "tcp://", "rtp://", "srt://")
STREAM_OPTIONS = {"rtsp_transport": "tcp", "allowed_media_types": "video"}  # of RTSP: pictures that arrive whole, no sound
NOMINAL_HZ = Fraction(25)  # where a camera does not say

Source = int | str | Path  # an index; a device or a URL; a file


class Capture:
    """One connection to a camera. Its thread opens `source`, hands every frame to `take` and calls `ended` when it is over.

    frame_rate    Fraction: what the camera says of itself, 25 if that is no use; known with the first frame
    over          whether it has ended
    problem       one sentence that says why, naming `argument` and the source; of no use if it was stopped
    error         what was raised on the way, if anything was

    A frame's pts_ns is when it arrived, on `clock`. After `stop` no frame is handed on. A read that hangs in the driver cannot be
    broken off: `join` says so, and the thread ends once the read returns.
    """

    def __init__(self, source: Source, argument: str, clock: Clock, take: Callable[[Capture, Frame], None], ended: Callable[[], None]):
        self.frame_rate = NOMINAL_HZ
        self.over = False
        self.error: BaseException | None = None
        self._argument, self._reason = argument, "it gave no frame"
        self._source, self._clock, self._take, self._ended = source, clock, take, ended
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"{argument} {shown(source)}", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        return str(self.error) if isinstance(self.error, UserError) else f"{self._argument} {shown(self._source)}: {self._reason}"

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, timeout_ns: int) -> bool:
        """Whether the thread has ended by then."""
        self._thread.join(timeout_ns / SECOND_NS)
        return not self.alive

    def _run(self) -> None:
        try:
            with closing(self._frames()) as frames:
                for frame in frames:
                    self._reason = "the stream ended"
                    if self._stopping:
                        return
                    self._take(self, frame)
        except BaseException as error:  # looked at in the owner's thread
            self.error = error
            self._reason = f"reading it failed, {type(error).__name__}"
        finally:
            self.over = True
            self._ended()

    def _frames(self) -> Generator[Frame, None, None]:
        if isinstance(self._source, Path):
            return self._file(self._source)
        if isinstance(self._source, str) and self._source.startswith(SCHEMES):
            return self._stream(self._source)
        return self._device(self._source)

    def _device(self, source: int | str) -> Generator[Frame, None, None]:
        set_opencv_log_level()
        capture = cv2.VideoCapture(source)
        try:
            if not capture.isOpened():
                self._reason = f"it cannot be opened, tried {_backends()}"
                return
            rate = capture.get(cv2.CAP_PROP_FPS)
            if 1 <= rate <= 240:
                self.frame_rate = Fraction(rate).limit_denominator(1001)
            self._reason = "it was opened but gave no frame"
            while not self._stopping:
                good, image = capture.read()
                if not good:
                    return
                yuv = colour.bgr_to_yuv(image, colour.Colour.default(image.shape[1], image.shape[0]))
                yield Frame.of_yuv(yuv, self._clock.now_ns())
        finally:
            capture.release()

    def _stream(self, url: str) -> Generator[Frame, None, None]:
        av.logging.set_level(None)
        try:
            container = av.open(url, options=STREAM_OPTIONS, timeout=(OPEN_NS / SECOND_NS, READ_NS / SECOND_NS))
        except (av.FFmpegError, OSError, ValueError) as error:
            self._reason = f"it cannot be opened, tried FFmpeg: {getattr(error, 'strerror', None) or type(error).__name__}"
            return
        with container:
            pictures = container.streams.best("video")
            if pictures is None or pictures.codec_context is None:
                self._reason = "it cannot be opened, tried FFmpeg: there are no pictures in it"
                return
            rate = pictures.average_rate or pictures.guessed_rate
            if rate and 1 <= rate <= 240:
                self.frame_rate = rate.limit_denominator(1001)
            self._reason = "it was opened but gave no frame"
            for decoded in decode(container, pictures):
                if self._stopping:
                    return
                # each at its own size: a camera may change it
                yield Frame.of_yuv(colour.to_yuv420p(decoded, decoded.width, decoded.height), self._clock.now_ns())

    def _file(self, path: Path) -> Generator[Frame, None, None]:
        """A video over and over, at its own pace."""
        with VideoFile(path, self._argument) as video:
            self.frame_rate = video.frame_rate
            start_ns = self._clock.now_ns()
            while not self._stopping:
                end_ns = start_ns
                for frame in video:
                    due_ns = start_ns + frame.pts_ns
                    late_ns = self._clock.now_ns() - due_ns
                    if late_ns > SECOND_NS:  # a clock that jumped is not made up for
                        start_ns, due_ns = start_ns + late_ns, due_ns + late_ns
                    if not self._wait(due_ns):
                        return
                    end_ns = due_ns + int(SECOND_NS / video.frame_rate)
                    yield frame.at(self._clock.now_ns())
                start_ns = end_ns

    def _wait(self, until_ns: int) -> bool:
        """Whether that time came before `stop`."""
        with self._changed:
            while not self._stopping and self._clock.now_ns() < until_ns:
                self._clock.wait(self._changed, until_ns)
        return not self._stopping


def parse(source: int | str, argument: str, files: bool) -> Source:
    """What a camera's name means; UserError if it can be none. `files`: whether a video may stand in for a camera."""
    text = str(source)
    if text.isdigit():
        return int(text)
    if text.startswith(SCHEMES):
        return text
    path = Path(text)
    if path.is_char_device():
        return text
    if path.is_file():
        if files:
            return path
        raise UserError(f"{argument} {text}: this is a file; give a camera's index, device or URL here, a file to --avatar")
    raise UserError(f"{argument} {shown(text)}: there is no such device; {advice()}")


def shown(source: Source) -> str:
    """The source as anybody may read it, in a log or on a page: without the name and password of a URL, which may stand in its query."""
    address = re.sub(r"(?<=://)[^/]*@", "", str(source))
    return re.sub(r"(?<=\?).*", "...", address) if "://" in address else address


def advice() -> str:
    """What could be given instead."""
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    here = f"here are {', '.join(devices)}" if devices else "no /dev/video* is here"
    return f"give a camera's index, a device or a URL ({here})"


def _backends() -> str:
    registry = cv2.videoio_registry
    backends = [registry.getBackendName(backend) for backend in registry.getCameraBackends()]
    return ", ".join(backends) or "no backend: OpenCV was built without any"
