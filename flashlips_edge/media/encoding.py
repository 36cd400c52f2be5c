"""What every written video shares: its mark, the picture and sound tracks, and the system's refusal in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soxr

from flashlips_edge.errors import UserError
from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame

SUFFIXES = (".mp4", ".m4v", ".mov")
AAC_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
MARK = "The lips in this video were synthesised by FlashLips Edge."  # the comment that a player shows


def check_suffix(path: Path, argument: str) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{argument} {path}: the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


@contextmanager
def failing(path: Path, argument: str) -> Iterator[None]:
    """The system's refusal in one sentence: a full disk, a folder that has gone."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        reason = error.strerror or error
        raise UserError(f"{argument} {path}: it cannot be written: {reason}; give another place") from None


class PictureTrack:
    """Frames on their way into an H.264 stream, whose colour tags are those of the first frame.

    ticks_hz    the stream's time base
    options     of libx264
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        first: Frame,
        frame_rate: Fraction,
        ticks_hz: int,
        options: dict[str, str],
        pixel_aspect: Fraction = Fraction(1),
    ):
        self._colour = first.tags
        self._frame_ticks = round(ticks_hz / frame_rate)
        stream = container.add_stream("libx264", rate=frame_rate, options=options)
        stream.width, stream.height = first.width, first.height
        # 4:2:0 H.264 knows only even sizes
        stream.pix_fmt = "yuv444p" if first.width % 2 or first.height % 2 else "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, ticks_hz)
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        self._colour.tag(stream.codec_context)
        self._stream = stream

    def encode(self, frame: Frame, tick: int) -> list[av.Packet]:
        """The packets that are ready once this frame, shown from `tick` on, is in."""
        stream = self._stream
        yuv = frame.yuv if frame.tags == self._colour else colour.rgb_to_yuv(frame.image, self._colour)
        if stream.pix_fmt != "yuv420p":
            yuv = colour.to_format(yuv, stream.pix_fmt, self._colour, stream.width, stream.height)
        if yuv is frame.yuv:
            yuv = colour.copy(yuv)  # the time goes onto the picture, and another thread may be writing the same frame
        yuv.pts, yuv.time_base, yuv.duration = tick, stream.time_base, self._frame_ticks
        yuv.pict_type = 0  # not the source's I, P or B
        return stream.encode(yuv)

    def finish(self) -> list[av.Packet]:
        return self._stream.encode(None)


class SoundTrack:
    """Samples on their way into an AAC stream, a frame of the encoder's at a time.

    `samples`, float32 [N] or [N, channels] in -1..1, are the beginning, which may be empty; `add` takes more of the same kind.
    """

    def __init__(self, samples: np.ndarray, sample_rate_hz: int):
        self._given_hz = sample_rate_hz
        self._rate_hz = sample_rate_hz if sample_rate_hz in AAC_RATES_HZ else 48_000
        self._samples = self._resampled(_channels_first(samples))  # [C, n], not yet encoded
        self._position = 0  # of the first sample not yet encoded

    def add(self, samples: np.ndarray) -> None:
        more = self._resampled(_channels_first(samples))
        self._samples = np.concatenate([self._samples, more], axis=1)

    def open(self, container: av.container.OutputContainer) -> None:
        self._stream = container.add_stream("aac", rate=self._rate_hz)
        self._stream.layout = "mono" if len(self._samples) == 1 else "stereo"
        self._stream.bit_rate = 96_000 * len(self._samples)

    def encode(self, until_s: Fraction | None = None) -> list[av.Packet]:
        """Packets of the sound up to a time, or of all there is."""
        n = self._samples.shape[1] if until_s is None else max(0, int(until_s * self._rate_hz) - self._position)
        ready, self._samples = np.split(self._samples, [n], axis=1)
        if not ready.shape[1]:
            return []
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(ready), "fltp", self._stream.layout.name)
        frame.sample_rate, frame.time_base, frame.pts = self._rate_hz, Fraction(1, self._rate_hz), self._position
        self._position += ready.shape[1]
        return self._stream.encode(frame)

    def finish(self) -> list[av.Packet]:
        return self._stream.encode(None)

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
