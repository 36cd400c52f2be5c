"""A video whose pictures are reached in any order at the cost of a few: there and back, jumped about in, for days."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av

from flashlips_edge.errors import UserError
from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.video_writer import VideoWriter

GROUP = 12  # pictures from one that stands for itself to the next
SECOND_NS = 1_000_000_000
# each group is decoded alone, in order; 14 is visually the source, and what is drawn over it is encoded once more
OPTIONS = {"g": str(GROUP), "keyint_min": str(GROUP), "sc_threshold": "0", "bf": "0", "tune": "fastdecode"}
PRESET, CRF = "veryfast", 14
ERRORS = (OSError, av.FFmpegError)  # what reading a picture may raise when the disk has gone


def write_loop_video(path: Path, frames: Iterable[Frame], width: int, height: int, frame_rate: Fraction, argument: str) -> int:
    """Write the pictures, one for each tick of `frame_rate`; gives their number. UserError: none came, or the disk is full."""
    count = 0
    with VideoWriter(
        path, width, height, frame_rate, None, Fraction(1), PRESET, CRF, argument, options=OPTIONS, comment="Prepared by FlashLips Edge."
    ) as writer:
        for frame in frames:
            writer.write(frame, int(count * SECOND_NS / frame_rate))
            count += 1
    return count


class LoopVideo:
    """Pictures of a file that `write_loop_video` wrote, by number. It stays open; not for use by two threads at once.

    width, height    pixels
    frame_rate       exact
    count            how many pictures there are
    tags             colour tags of its pictures

    Raises UserError, naming `argument` and the path, for a file that is missing, damaged or of another kind.
    """

    def __init__(self, path: Path, argument: str):
        self.path = path
        try:
            self._container = av.open(str(path.absolute()), options={"protocol_whitelist": "file"})
            self._stream = self._container.streams.video[0]
        except (*ERRORS, ValueError, IndexError):
            raise UserError(f"{argument} {path}: it is missing, damaged or not a prepared video; prepare the avatar again") from None
        self._stream.thread_type = "NONE"  # a thread for each core would hold back as many pictures
        self.width, self.height, self.count = self._stream.width, self._stream.height, self._stream.frames
        self.frame_rate = Fraction(self._stream.average_rate or 0).limit_denominator(1001)
        if not self.count or not self.frame_rate:
            self.close()
            raise UserError(f"{argument} {path}: it holds no pictures; prepare the avatar again")

    def group(self, number: int) -> list[Frame]:
        """Pictures GROUP * number on, GROUP of them or fewer at the end, each with its pts. Raises ERRORS if it cannot be read."""
        first, last = GROUP * number, min(GROUP * (number + 1), self.count) - 1
        self._container.seek(int(first / self.frame_rate / self._stream.time_base), stream=self._stream)
        frames: list[Frame] = []
        for packet in self._container.demux(self._stream):
            for decoded in packet.decode():
                if decoded.pts is not None and first <= round(decoded.pts * self._stream.time_base * self.frame_rate) <= last:
                    yuv = colour.to_yuv420p(decoded, self.width, self.height)
                    frames.append(Frame.of_yuv(yuv, int((first + len(frames)) * SECOND_NS / self.frame_rate)))
            if len(frames) > last - first:
                return frames
        raise OSError(f"{self.path} ends before picture {last}")

    def close(self) -> None:
        self._container.close()
