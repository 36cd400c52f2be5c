"""Opening a media file: what can be wrong with it, each in one sentence."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import av
import av.logging

from flashlips_edge.errors import UserError

VIDEO = "a video: mp4, mov, mkv, webm, avi, flv, mpg, or a picture"
SOUND = "sound: wav, flac, mp3, ogg, m4a, or a video with sound"
KNOW_THEIR_LENGTH = ("mov,mp4,m4a,3gp,3g2,mj2", "wav", "flac", "avi")  # others guess it by their bit rate
LEAST_MISSING_S, LEAST_MISSING = 0.5, 0.05  # seconds, and share, by which a file is shorter than it says before that is told


@contextmanager
def open_media(path: str | Path, argument: str, wanted: str) -> Iterator[av.container.InputContainer]:
    """The open container of a media file; UserError names `argument`, the path, what is wrong and what is `wanted`."""
    path = Path(path)
    av.logging.set_level(None)
    if not path.exists():
        raise UserError(f"{argument} {path}: there is no such file; give {wanted}")
    if not path.is_file():
        raise UserError(f"{argument} {path}: this is not a file; give {wanted}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{argument} {path}: it may not be read; give a file that you may read")
    if path.stat().st_size == 0:
        raise UserError(f"{argument} {path}: the file is empty; give {wanted}")
    try:
        # a local file never needs another protocol: a play list cannot make us fetch anything
        container = av.open(str(path.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.FFmpegError, ValueError):
        raise UserError(f"{argument} {path}: it is damaged, cut off or of another kind; give {wanted}") from None
    with container:
        yield container


def decode(container: av.container.InputContainer, stream: av.stream.Stream, what: str = "") -> Iterator[av.frame.Frame]:
    """The stream's frames in display order; damaged packets are passed over, a file that breaks off ends there. Read to its end it is
    said of ``what``, a file, where either happened."""
    packets = container.demux(stream)
    damaged, end_s = False, 0.0
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            packet = None
        try:
            for frame in stream.decode(packet) if packet is not None else stream.codec_context.decode(None):
                damaged |= frame.is_corrupt
                end_s = max(end_s, _end_s(frame, stream))
                yield frame
        except av.EOFError:
            break
        except av.FFmpegError:
            damaged = True  # one packet: the decoder goes on with the next
        if packet is None:
            break
    if what:
        _tell(what, container, stream, damaged, end_s)


def _end_s(frame: av.frame.Frame, stream: av.stream.Stream) -> float:
    """Where the frame ends, in seconds of the stream."""
    if frame.pts is None:
        return 0.0
    base = frame.time_base or stream.time_base
    lasts = frame.samples / frame.sample_rate if isinstance(frame, av.AudioFrame) else (frame.duration or 0) * base
    return float(frame.pts * base + lasts - (stream.start_time or 0) * stream.time_base)


def _tell(what: str, container: av.container.InputContainer, stream: av.stream.Stream, damaged: bool, end_s: float) -> None:
    whole_s = float(stream.duration * stream.time_base) if stream.duration and container.format.name in KNOW_THEIR_LENGTH else 0.0
    if 0 < end_s < whole_s - max(LEAST_MISSING_S, LEAST_MISSING * whole_s):
        say_once(f"{what}: it breaks off after {end_s:.1f} of {whole_s:.1f} s")
    elif damaged:
        say_once(f"{what}: parts of it are damaged and were passed over")


@cache
def say_once(sentence: str) -> None:
    """Once, however often the file is read."""
    logging.getLogger("flashlips_edge").warning(sentence)
