"""The stretches of a video that show one face without a break, as crops."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from flashlips_edge.face.crop import cut
from flashlips_edge.face.detect import HaarDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.video_file import SECOND_NS, VideoFile
from flashlips_edge.training.dissolves import WINDOW_NS, Dissolves

MIN_FRAMES = 25
MIN_NS = 950_000_000
MAX_NS = 10_000_000_000  # a longer video becomes several clips
GAP_NS = 200_000_000  # longer without a face, and than two frames: the clip ends
SCENE_CUT = 30.0  # grey levels, mean over the small picture, from one frame to the next


class Piece(NamedTuple):
    """A stretch of a video with one face all through: crops uint8 [T, S, S, 3] and pts_ns int64 [T] in the video."""

    crops: np.ndarray
    pts_ns: np.ndarray


def pieces(video: VideoFile, size: int) -> Iterator[Piece]:
    """The stretches of one face without a cut or a dissolve, a second at least and ten at most; crops of ``size`` px."""
    tracker, dissolves = FaceTracker(HaarDetector(), float(video.frame_rate)), Dissolves()
    crops: list[np.ndarray] = []
    pts_ns: list[int] = []
    before: np.ndarray | None = None
    over_ns: int | None = None  # when a dissolve is
    gap_ns = max(GAP_NS, int(2 * SECOND_NS / video.frame_rate))  # below 5 frames a second every frame is a gap by itself

    def taken(count: int) -> list[Piece]:
        long_enough = count >= MIN_FRAMES and pts_ns[count - 1] - pts_ns[0] >= MIN_NS
        result = [Piece(np.stack(crops[:count]), np.array(pts_ns[:count]))] if long_enough else []
        del crops[:count], pts_ns[:count]
        return result

    def ended(count: int) -> Iterator[Piece]:
        """Of the first ``count`` crops; the others are of no scene."""
        del crops[count:], pts_ns[count:]
        while crops:
            yield from taken(bisect_left(pts_ns, pts_ns[0] + MAX_NS))

    for frame in video:
        small = cv2.resize(frame.luma, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
        cut_to = before is not None and np.abs(small - before).mean() > SCENE_CUT
        before = small
        if cut_to:
            tracker.reset()
        if crops and (cut_to or frame.pts_ns - pts_ns[-1] > gap_ns):
            yield from ended(len(crops))
        if crops and frame.pts_ns - pts_ns[0] >= MAX_NS + WINDOW_NS:  # a dissolve is seen when it is nearly over
            yield from taken(bisect_left(pts_ns, pts_ns[0] + MAX_NS))
        box = tracker.update(frame.luma, frame.pts_ns)
        if box is None:
            continue
        crop = cut(frame.image, box, size).image
        since_ns = dissolves.update(crop, frame.pts_ns)
        if since_ns is not None:
            yield from ended(bisect_left(pts_ns, since_ns))
            over_ns = frame.pts_ns + WINDOW_NS // 2  # its end is not seen where the face is lost in it
        elif over_ns is None:
            crops.append(crop)
            pts_ns.append(frame.pts_ns)
        elif frame.pts_ns >= over_ns:
            tracker.reset()  # which was held so that crops could be compared
            over_ns = None
    yield from ended(len(crops))
