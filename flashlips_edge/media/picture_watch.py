"""Whether the pictures of a camera are alive: not the same one again and again, and not black."""

from __future__ import annotations

from typing import Literal

import numpy as np

from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS

FROZEN_NS = 3 * SECOND_NS  # the same picture, bit for bit, for this long; a camera that works has noise
BLACK_NS = SECOND_NS
BLACK_LUMA = 40  # of 16 to 235: a covered lens with its noise lies below
BRIGHT_SHARE = 0.01  # of the pixels that may be brighter: a time stamp drawn into the picture, hot pixels
SAMPLE_PX = 8  # every so many rows and columns are looked at first

Verdict = Literal["live", "frozen", "black"]


class PictureWatch:
    """Looks at the frames of one connection, in order."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None  # luma [H, W] of the last frame
        self._changed_ns = 0
        self._black_ns: int | None = None  # since when it is black

    def look(self, frame: Frame) -> Verdict | None:
        """What this frame says of the camera; None of a black one that has not lasted BLACK_NS: it may be an exposure that settles."""
        luma = frame.luma
        if self._last is None or not _same(luma, self._last):
            self._changed_ns = frame.pts_ns
        self._last = luma
        if _black(luma):
            self._black_ns = frame.pts_ns if self._black_ns is None else self._black_ns
            return "black" if frame.pts_ns - self._black_ns >= BLACK_NS else None
        self._black_ns = None
        return "frozen" if frame.pts_ns - self._changed_ns >= FROZEN_NS else "live"


def _same(luma: np.ndarray, last: np.ndarray) -> bool:
    sample = np.s_[::SAMPLE_PX, ::SAMPLE_PX]
    return np.array_equal(luma[sample], last[sample]) and np.array_equal(luma, last)


def _black(luma: np.ndarray) -> bool:
    sample = luma[::SAMPLE_PX, ::SAMPLE_PX]
    return np.count_nonzero(sample > BLACK_LUMA) <= BRIGHT_SHARE * sample.size
