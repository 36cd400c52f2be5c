"""Opening a media file: what can be wrong with it, each in one sentence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.logging

from flashlips_edge.errors import UserError

VIDEO = "a video: mp4, mov, mkv, webm, avi, flv, mpg, or a picture"
SOUND = "sound: wav, flac, mp3, ogg, m4a, or a video with sound"


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


def decode(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[av.frame.Frame]:
    """The stream's frames in display order; damaged packets are passed over, a file that breaks off ends there."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            packet = None
        try:
            yield from stream.decode(packet) if packet is not None else stream.codec_context.decode(None)
        except av.EOFError:
            return
        except av.FFmpegError:
            pass  # one damaged packet: the decoder goes on with the next
        if packet is None:
            return
