"""Frames of a video file."""

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import cv2
import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.media import colour
from flashlips_edge.media.deinterlace import deinterlaced
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.opening import VIDEO, decode, open_media

SECOND_NS = 1_000_000_000


class Turn(NamedTuple):
    """How a stored picture becomes upright: transpose, then mirror left to right, then mirror top to bottom."""

    transpose: bool
    mirror_x: bool
    mirror_y: bool


# counterclockwise
QUARTER_TURNS = [Turn(False, False, False), Turn(True, False, True), Turn(False, True, True), Turn(True, True, False)]


class VideoFile:
    """The frames of a video file in display order, upright: the rotation and mirror flags are applied to the picture.

        with VideoFile("talk.mp4") as video:
            for frame in video:  # Frame: uint8 RGB on demand, pts_ns from the start of the video stream
                ...

    width, height    pixels of the frames it gives
    frame_rate       Fraction, the average; the nominal rate (30000/1001) where the file is within a hundredth of it
    frames           how many there are, as the file says or by its length: an estimate, for a progress bar
    duration_ns      length of the video, as the file says: 0 if it does not
    pixel_aspect     Fraction, width of a pixel over its height: 1 nearly always; give it on to VideoWriter
    has_audio        whether the file holds sound (`audio_file.read_sound` gives it, on the same time scale)

    pts_ns rises strictly: a time that is missing or does not rise is put one frame after the last. A still picture
    (jpg, png) is a video of one frame. Interlaced pictures are made whole. Damaged frames are passed over and a file that
    breaks off ends there, as long as one frame can be read. Each `iter` reads from the start again; `close` stops what is
    still being read.

    Raises UserError in one sentence, naming `argument` and the path: no such file, not a video, nothing to decode.
    """

    def __init__(self, path: str | Path, argument: str = "video"):
        self.path = Path(path)
        self._argument = argument
        self._readers: list[Generator[Frame, None, None]] = []
        with open_media(self.path, argument, VIDEO) as container:
            stream = self._stream(container)
            first = next(decode(container, stream), None)
            if first is None:
                raise UserError(f"{argument} {path}: none of its frames can be decoded; give {VIDEO}")
            self._coded_size = first.width, first.height
            self._turn = _turn(first)
            self.width, self.height = self._coded_size[::-1] if self._turn.transpose else self._coded_size
            self.frame_rate = _frame_rate(stream)
            self.pixel_aspect = _pixel_aspect(stream, transposed=self._turn.transpose)
            self.has_audio = any(s.codec_context is not None for s in container.streams.audio)
            self._start = stream.start_time if stream.start_time is not None else first.pts or 0
            seconds = (stream.duration or 0) * stream.time_base or Fraction(container.duration or 0, av.time_base)
            self.duration_ns = int(seconds * SECOND_NS)
            self.frames = max(1, stream.frames or round(seconds * self.frame_rate))

    def __iter__(self) -> Iterator[Frame]:
        reader = self._read()
        self._readers.append(reader)
        return reader

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        while self._readers:
            self._readers.pop().close()

    def _stream(self, container: av.container.InputContainer) -> av.VideoStream:
        stream = container.streams.best("video")
        # ansi: what FFmpeg takes any text file for
        if stream is None or stream.codec_context is None or stream.codec_context.name == "ansi":
            raise UserError(f"{self._argument} {self.path}: it holds no pictures; give {VIDEO}")
        stream.thread_type = "AUTO"
        return stream

    def _read(self) -> Generator[Frame, None, None]:
        step_ns = int(SECOND_NS / self.frame_rate)
        last_ns = -step_ns
        with open_media(self.path, self._argument, VIDEO) as container:
            stream = self._stream(container)
            what = f"{self._argument} {self.path}"
            for decoded in deinterlaced(decode(container, stream, what), stream.time_base, what):
                pts_ns = last_ns + step_ns
                if decoded.pts is not None:
                    stamp_ns = round((decoded.pts - self._start) * stream.time_base * SECOND_NS)
                    pts_ns = stamp_ns if stamp_ns > last_ns else pts_ns
                pts_ns = last_ns = max(0, pts_ns)
                yield Frame.of_yuv(_upright(colour.to_yuv420p(decoded, *self._coded_size), self._turn), pts_ns)


def _frame_rate(stream: av.VideoStream) -> Fraction:
    average, nominal = stream.average_rate, stream.guessed_rate
    if average and nominal and abs(nominal / average - 1) < Fraction(1, 100):
        average = nominal
    rate = (average or nominal or Fraction(25)).limit_denominator(1001)
    return rate if 1 <= rate <= 1000 else Fraction(25)


def _pixel_aspect(stream: av.VideoStream, transposed: bool) -> Fraction:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 10) < aspect < 10:
        return Fraction(1)
    return 1 / aspect if transposed else aspect


def _turn(frame: av.VideoFrame) -> Turn:
    """The display matrix, to the nearest quarter turn."""
    try:
        matrices = [data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
    except ValueError:  # side data that PyAV has no name for, such as EXIF: the angle is still to be had
        return QUARTER_TURNS[round(frame.rotation / 90) % 4]
    if not matrices:
        return QUARTER_TURNS[0]
    a, b, _, c, d, *_ = np.frombuffer(matrices[0], np.int32).tolist()  # x' = a x + c y, y' = b x + d y
    return Turn(True, c < 0, b < 0) if abs(a) < abs(b) else Turn(False, a < 0, d < 0)


def _upright(yuv: av.VideoFrame, turn: Turn) -> av.VideoFrame:
    if not any(turn):
        return yuv
    size = (yuv.height, yuv.width) if turn.transpose else (yuv.width, yuv.height)
    turned = colour.empty_yuv(*size, colour.Colour.of(yuv))
    for to, plane in zip(colour.planes(turned), colour.planes(yuv), strict=True):
        plane = cv2.transpose(plane) if turn.transpose else plane
        to[:] = plane[:: -1 if turn.mirror_y else 1, :: -1 if turn.mirror_x else 1]
    return turned
