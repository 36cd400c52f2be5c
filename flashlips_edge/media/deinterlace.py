"""Pictures whose odd and even lines are of two moments, as whole ones: what is written from them is progressive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av

from flashlips_edge.media.opening import say_once

FILTER, OPTIONS = "bwdif", "mode=send_frame:parity=auto:deint=interlaced"  # a picture for a picture, progressive ones as they are

SMALLEST = 16  # pixels: the filter looks at lines on both sides


def deinterlaced(frames: Iterable[av.VideoFrame], time_base: Fraction, what: str) -> Iterator[av.VideoFrame]:
    """As many frames at the same times, the interlaced ones made whole, which is said of ``what``, a file. From the first of those on
    it holds one frame back."""
    lines: _Deinterlacer | None = None
    for frame in frames:
        if lines is not None and not lines.takes(frame):
            yield from lines.finish()
            lines = None
        if lines is None and frame.interlaced_frame and _can_be(frame):
            say_once(f"{what}: it is interlaced; its pictures are deinterlaced, which changes them outside the mouth too")
            lines = _Deinterlacer(frame, time_base)
        if lines is None:
            yield frame
        else:
            yield from lines.add(frame)
    if lines is not None:
        yield from lines.finish()


class _Deinterlacer:
    """FFmpeg's filter for pictures of one size and format."""

    def __init__(self, like: av.VideoFrame, time_base: Fraction):
        self._format = _format(like)
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(width=like.width, height=like.height, format=like.format, time_base=time_base)
        self._graph.link_nodes(source, self._graph.add(FILTER, OPTIONS), self._graph.add("buffersink")).configure()
        self._times: deque[tuple[int | None, Fraction]] = deque()  # the filter counts in half of the time base

    def takes(self, frame: av.VideoFrame) -> bool:
        return _format(frame) == self._format

    def add(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        self._times.append((frame.pts, frame.time_base))
        self._graph.vpush(frame)
        return self._ready()

    def finish(self) -> Iterator[av.VideoFrame]:
        self._graph.vpush(None)
        return self._ready()

    def _ready(self) -> Iterator[av.VideoFrame]:
        while self._times:
            try:
                frame = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return
            frame.pts, frame.time_base = self._times.popleft()
            yield frame


def _can_be(frame: av.VideoFrame) -> bool:
    """Whether the filter takes the picture as it is; what it had to convert first would lose its colour tags."""
    return frame.format.name.startswith(("yuv", "gray")) and min(frame.width, frame.height) >= SMALLEST


def _format(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
