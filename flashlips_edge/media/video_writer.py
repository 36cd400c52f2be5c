"""A video file, written frame by frame: H.264 and AAC."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, TracebackType

import av
import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path
from flashlips_edge.media.encoding import MARK, PictureTrack, SoundTrack, check_suffix, failing
from flashlips_edge.media.frames import Frame

PRESET, CRF = "superfast", 18  # libx264's speed against size, and quality: 18 is visually the source
SECOND_NS = 1_000_000_000
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


class VideoWriter:
    """Writes frames and sound to `path`, which appears whole when the writer is closed and not at all if it fails.

        with VideoWriter("out.mp4", 1080, 1920, Fraction(30000, 1001), audio=(samples, 44100)) as writer:
            writer.write(frame)                      # a Frame, at its own pts_ns
            writer.write(frame, pts_ns)              # the same picture at another time: a looped avatar
            writer.write(image, pts_ns)              # uint8 RGB [H, W, 3]

    The cheap way to a changed frame is `frame.replace(x, y, patch)`: planes go to the encoder as they are.

    width, height    the file has exactly this size. 4:2:0 H.264 knows only even sizes, so an odd one is coded 4:4:4
    frame_rate       nominal; every frame keeps its own pts_ns (they must rise, from 0 or later), exact for any rate
                     that is a fraction, to 6 microseconds for other times, if they are 12 or more apart
    audio            float32 [N] or [N, channels] in -1..1 with its rate, heard from pts 0 on; it may start empty and
                     grow by `write_audio`. It may be shorter or longer than the pictures
    pixel_aspect     width of a pixel over its height, as VideoFile gives it
    options          more of libx264's
    comment          what a player shows; by default that the lips are synthetic

    Colour tags are the first frame's. Leaving `with` by Ctrl-C finishes a file that plays, its sound cut where the
    pictures end; by any other exception, or before the first frame, nothing is left.

    Raises UserError in one sentence naming `argument` and the path: a suffix that is not mp4, m4v or mov, a place that
    cannot be written, a disk that is full, no frame at all.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        frame_rate: Fraction,
        audio: tuple[np.ndarray, int] | None = None,
        pixel_aspect: Fraction = Fraction(1),
        preset: str = PRESET,
        crf: int = CRF,
        argument: str = "output",
        options: Mapping[str, str] = NO_OPTIONS,
        comment: str = MARK,
    ):
        self.path, self.width, self.height = Path(path), width, height
        check_suffix(self.path, argument)
        self._argument, self._pixel_aspect = argument, pixel_aspect
        self._options, self._comment = {"preset": preset, "crf": str(crf), **options}, comment
        self._frame_rate = Fraction(frame_rate)
        # whole frames and 90 kHz alike are whole numbers of ticks, or nearly
        self._ticks_hz = self._frame_rate.numerator * -(-90_000 // self._frame_rate.numerator)
        self._sound = None if audio is None else SoundTrack(*audio)
        self._container: av.container.OutputContainer | None = None
        self._last_ns = self._last_tick = -1
        self._closed = False
        self._stack = ExitStack()
        self._temporary = self._stack.enter_context(atomic_path(self.path))

    def write(self, picture: Frame | np.ndarray, pts_ns: int | None = None) -> None:
        """Encode a Frame, or uint8 RGB [H, W, 3], shown from pts_ns (a Frame's own if not given) until the next."""
        frame = picture if isinstance(picture, Frame) else Frame(picture)
        pts_ns = frame.pts_ns if pts_ns is None else pts_ns
        if (frame.width, frame.height) != (self.width, self.height):
            raise ValueError(f"frame is {frame.width} x {frame.height}, the file {self.width} x {self.height}")
        if pts_ns <= self._last_ns:
            raise ValueError(f"pts_ns {pts_ns} does not come after the last frame's")
        # two frames may be less than a tick apart
        tick = max(round(Fraction(pts_ns * self._ticks_hz, SECOND_NS)), self._last_tick + 1)
        with failing(self.path, self._argument):
            container = self._container or self._open(frame)
            self._last_ns, self._last_tick = pts_ns, tick
            container.mux(self._pictures.encode(frame, tick))
            if self._sound:
                container.mux(self._sound.encode(self._end_s()))

    def write_audio(self, samples: np.ndarray) -> None:
        """Add float32 [n] or [n, channels] to the end of the sound; the writer was made with `audio`."""
        if self._sound is None:
            raise ValueError("this writer was made without audio")
        self._sound.add(samples)

    def close(self, cut_sound: bool = False) -> None:
        """Finish the file; `cut_sound` ends the sound with the last picture instead of writing all of it."""
        if self._closed:
            return
        try:
            with failing(self.path, self._argument):
                if self._container is None:
                    raise UserError(f"{self._argument} {self.path}: no frame came, so nothing was written")
                self._container.mux(self._pictures.finish())
                if self._sound:
                    self._container.mux(self._sound.encode(self._end_s() if cut_sound else None) + self._sound.finish())
                self._container.close()
        except BaseException:
            self.abort()
            raise
        self._closed = True
        with failing(self.path, self._argument):
            self._stack.close()

    def abort(self) -> None:
        """Give up: nothing is left at `path`."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError, av.FFmpegError):
            if self._container is not None:
                self._container.close()
        abandoned = RuntimeError("abandoned")
        self._stack.__exit__(type(abandoned), abandoned, None)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, KeyboardInterrupt) and self._container is not None:
            self.close(cut_sound=True)
        else:
            self.abort()

    def _open(self, first: Frame) -> av.container.OutputContainer:
        """Start the file; the encoder's colour tags are the first frame's."""
        # what comes before a colon in a relative name is a protocol to FFmpeg
        container = av.open(str(self._temporary.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
        container.metadata["comment"] = self._comment
        self._pictures = PictureTrack(container, first, self._frame_rate, self._ticks_hz, self._options, self._pixel_aspect)
        if self._sound is not None:
            self._sound.open(container)
        self._container = container
        return container

    def _end_s(self) -> Fraction:
        """When the last picture ends."""
        return Fraction(self._last_tick, self._ticks_hz) + 1 / self._frame_rate
