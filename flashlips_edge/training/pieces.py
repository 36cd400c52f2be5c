"""The stretches of a video that show one face without a break, as crops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from flashlips_edge.face.crop import cut
from flashlips_edge.face.detect import HaarDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.video_file import SECOND_NS, VideoFile

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
    """The stretches of one face without a scene cut, a second at least and ten at most; crops of ``size`` px."""
    tracker = FaceTracker(HaarDetector(), float(video.frame_rate))
    crops: list[np.ndarray] = []
    pts_ns: list[int] = []
    before = None
    gap_ns = max(GAP_NS, int(2 * SECOND_NS / video.frame_rate))  # below 5 frames a second every frame is a gap by itself

    def taken() -> list[Piece]:
        long_enough = len(crops) >= MIN_FRAMES and pts_ns[-1] - pts_ns[0] >= MIN_NS
        result = [Piece(np.stack(crops), np.array(pts_ns))] if long_enough else []
        crops.clear()
        pts_ns.clear()
        return result

    for frame in video:
        small = cv2.resize(frame.luma, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
        cut_to = before is not None and np.abs(small - before).mean() > SCENE_CUT
        before = small
        if cut_to:
            tracker.reset()
        if crops and (cut_to or frame.pts_ns - pts_ns[-1] > gap_ns or frame.pts_ns - pts_ns[0] >= MAX_NS):
            yield from taken()
        box = tracker.update(frame.luma, frame.pts_ns)
        if box is not None:
            crops.append(cut(frame.image, box, size).image)
            pts_ns.append(frame.pts_ns)
    if crops:
        yield from taken()
