"""A video file, written frame by frame: H.264 and AAC."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import soxr

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path
from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame

PRESET, CRF = "superfast", 18  # libx264's speed against size, and quality: 18 is visually the source
SUFFIXES = (".mp4", ".m4v", ".mov")
AAC_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
SECOND_NS = 1_000_000_000
MARK = "The lips in this video were synthesised by FlashLips Edge."  # the comment that a player shows


class VideoWriter:
    """Writes frames and sound to `path`, which appears whole when the writer is closed and not at all if it fails.

        with VideoWriter("out.mp4", 1080, 1920, Fraction(30000, 1001), audio=(samples, 44100)) as writer:
            writer.write(frame)                      # a Frame, at its own pts_ns
            writer.write(frame, pts_ns)              # the same picture at another time: a looped avatar
            writer.write(image, pts_ns)              # uint8 RGB [H, W, 3]

    The cheap way to a changed frame is `frame.replace(x, y, patch)`: planes go to the encoder as they are.

    width, height    the file has exactly this size. 4:2:0 H.264 knows only even sizes, so an odd one is coded 4:4:4
    frame_rate       nominal; every frame keeps its own pts_ns (they must rise, from 0 or later), exact for any rate
                     that is a fraction, to 6 microseconds for other times
    audio            float32 [N] or [N, channels] in -1..1 with its rate, heard from pts 0 on; it may start empty and
                     grow by `write_audio`. It may be shorter or longer than the pictures
    pixel_aspect     width of a pixel over its height, as VideoFile gives it

    Colour tags are the first frame's. Leaving `with` by Ctrl-C finishes a file that plays, its sound cut where the
    pictures end; by any other exception nothing is left.

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
    ):
        self.path, self.width, self.height = Path(path), width, height
        if self.path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{argument} {path}: the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
        self._argument, self._pixel_aspect = argument, pixel_aspect
        self._options = {"preset": preset, "crf": str(crf)}
        self._frame_rate = Fraction(frame_rate)
        # whole frames and 90 kHz alike are whole numbers of ticks, or nearly
        self._ticks_hz = self._frame_rate.numerator * -(-90_000 // self._frame_rate.numerator)
        self._sound = None if audio is None else _Sound(*audio)
        self._container: av.container.OutputContainer | None = None
        self._last_tick = -1
        self._closed = False
        self._stack = ExitStack()
        self._temporary = self._stack.enter_context(atomic_path(self.path))

    def write(self, picture: Frame | np.ndarray, pts_ns: int | None = None) -> None:
        """Encode a Frame, or uint8 RGB [H, W, 3], shown from pts_ns (a Frame's own if not given) until the next."""
        frame = picture if isinstance(picture, Frame) else Frame(picture)
        pts_ns = frame.pts_ns if pts_ns is None else pts_ns
        if (frame.width, frame.height) != (self.width, self.height):
            raise ValueError(f"frame is {frame.width} x {frame.height}, the file {self.width} x {self.height}")
        tick = round(Fraction(pts_ns * self._ticks_hz, SECOND_NS))
        if tick <= self._last_tick:
            raise ValueError(f"pts_ns {pts_ns} does not come after the last frame's")
        with self._failing():
            container = self._container or self._open(frame)
            self._last_tick = tick
            yuv = frame.yuv
            if frame.tags != self._colour:
                yuv = colour.rgb_to_yuv(frame.image, self._colour)
            if self._video.pix_fmt != "yuv420p":
                yuv = colour.to_format(yuv, self._video.pix_fmt, self._colour, self.width, self.height)
            yuv.pts, yuv.time_base, yuv.pict_type = tick, self._video.time_base, 0  # 0: not the source's I, P or B
            yuv.duration = round(self._ticks_hz / self._frame_rate)
            container.mux(self._video.encode(yuv))
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
            with self._failing():
                if self._container is None:
                    raise UserError(f"{self._argument} {self.path}: no frame came, so nothing was written")
                self._container.mux(self._video.encode(None))
                if self._sound:
                    self._container.mux(self._sound.encode(self._end_s(), last=True, cut=cut_sound))
                self._container.close()
        except BaseException:
            self.abort()
            raise
        self._closed = True
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
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close(cut_sound=kind is not None)
        else:
            self.abort()

    def _open(self, first: Frame) -> av.container.OutputContainer:
        """Start the file; the encoder's colour tags are the first frame's."""
        self._colour = first.tags
        container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
        container.metadata["comment"] = MARK
        video = container.add_stream("libx264", rate=self._frame_rate, options=self._options)
        video.width, video.height = self.width, self.height
        video.pix_fmt = "yuv444p" if self.width % 2 or self.height % 2 else "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, self._ticks_hz)
        video.codec_context.sample_aspect_ratio = self._pixel_aspect
        self._colour.tag(video.codec_context)
        self._video = video
        if self._sound is not None:
            self._sound.open(container)
        self._container = container
        return container

    def _end_s(self) -> Fraction:
        """When the last picture ends."""
        return Fraction(self._last_tick, self._ticks_hz) + 1 / self._frame_rate

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """The system's refusal in one sentence: a full disk, a folder that has gone."""
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            reason = error.strerror or error
            raise UserError(f"{self._argument} {self.path}: it cannot be written: {reason}; give another place") from None


class _Sound:
    """Samples on their way into an AAC stream, a frame of the encoder's at a time."""

    def __init__(self, samples: np.ndarray, sample_rate_hz: int):
        self._samples = _channels_first(samples)  # [C, n], not yet encoded
        self._given_hz = sample_rate_hz
        self._rate_hz = sample_rate_hz if sample_rate_hz in AAC_RATES_HZ else 48_000
        self._samples = self._resampled(self._samples)
        self._position = 0  # of the first sample not yet encoded

    def add(self, samples: np.ndarray) -> None:
        more = self._resampled(_channels_first(samples))
        self._samples = np.concatenate([self._samples, more], axis=1)

    def open(self, container: av.container.OutputContainer) -> None:
        self._stream = container.add_stream("aac", rate=self._rate_hz)
        self._stream.layout = "mono" if len(self._samples) == 1 else "stereo"
        self._stream.bit_rate = 96_000 * len(self._samples)

    def encode(self, until_s: Fraction, last: bool = False, cut: bool = False) -> list[av.Packet]:
        """Packets of the sound up to a time; with `last`, of all of it (unless `cut` there), and the encoder's rest."""
        n = self._samples.shape[1] if last and not cut else max(0, int(until_s * self._rate_hz) - self._position)
        ready, self._samples = np.split(self._samples, [n], axis=1)
        packets = []
        if ready.shape[1]:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(ready), "fltp", self._stream.layout.name)
            frame.sample_rate, frame.time_base, frame.pts = self._rate_hz, Fraction(1, self._rate_hz), self._position
            self._position += ready.shape[1]
            packets += self._stream.encode(frame)
        return packets + self._stream.encode(None) if last else packets

    def _resampled(self, samples: np.ndarray) -> np.ndarray:
        if self._rate_hz == self._given_hz or not samples.size:
            return samples
        return np.ascontiguousarray(soxr.resample(samples.T, self._given_hz, self._rate_hz).T)


def _channels_first(samples: np.ndarray) -> np.ndarray:
    """float32 [C, N] with one channel or two of [N] or [N, C]; more than two become one."""
    samples = np.asarray(samples, np.float32)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.shape[1] > 2:
        samples = samples.mean(1, keepdims=True)
    return samples.T
