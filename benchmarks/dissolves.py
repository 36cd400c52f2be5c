"""Whether training clips end where one person dissolves into another, and only there.

    python -m benchmarks.dissolves

Every video of the data is one scene: a dissolve found in it is a false one. Eight people, each dissolved into each of the others over half
a second, three quarters and one, are to become clips of one person each, without a frame that shows more than a twentieth of the other.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from functools import cache
from itertools import permutations, product
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.face.crop import cut
from flashlips_edge.face.detect import HaarDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.training.dissolves import Dissolves
from flashlips_edge.training.pieces import pieces
from flashlips_edge.training.prepare import find_videos
from flashlips_edge.training.workers import worker_pool

GRID = ("train/grid_s1/bbaf2n.mp4", *(f"train/grid_multi/{name}.mpg" for name in ("brbk7n", "lrwp9a", "s26_bgbsza", "s30_bwwy5n")))
PEOPLE = (*GRID, "test/grid_unseen/s31_lbwo3s.mpg", "test/grid_unseen/sbia1a.mpg", "train/crema_d/1001_DFA_ANG_XX.flv")
LENGTHS = 12, 19, 25  # frames at 25 Hz
FRAMES, SIZE, CROP_PX = 60, (360, 288), 96


class Dissolved:
    """A video of two people, of whom the second shows by ``shares`` [T]."""

    frame_rate = 25

    def __init__(self, before: np.ndarray, after: np.ndarray, length: int) -> None:
        alone = FRAMES - length
        self.shares = np.r_[np.zeros(alone), np.arange(1, length + 1) / (length + 1), np.ones(alone)]
        self._before, self._after = np.r_[before, before[:alone]], np.r_[after[:alone], after]  # what has no share is never seen

    def __iter__(self) -> Iterator[Frame]:
        for i, (share, before, after) in enumerate(zip(self.shares, self._before, self._after)):
            yield Frame(np.round((1 - share) * before + share * after).astype(np.uint8), i * 40_000_000)


@cache
def person(path: Path) -> np.ndarray:
    """uint8 [FRAMES, 288, 360, 3]."""
    with VideoFile(path) as video:
        return np.stack([cv2.resize(frame.image, SIZE) for frame, _ in zip(video, range(FRAMES))])


def missed(before: Path, after: Path, length: int) -> bool:
    """Whether a clip shows both people."""
    video = Dissolved(person(before), person(after), length)
    found = [video.shares[piece.pts_ns // 40_000_000] for piece in pieces(video, CROP_PX)]  # type: ignore[arg-type]
    return any(shares.max() > 0.05 and shares.min() < 0.95 for shares in found)


def false_ones(path: Path) -> int:
    """Frames at which a dissolve is found."""
    dissolves, count = Dissolves(), 0
    with VideoFile(path) as video:
        tracker = FaceTracker(HaarDetector(), float(video.frame_rate))
        for frame in video:
            if (box := tracker.update(frame.luma, frame.pts_ns)) is not None:
                count += dissolves.update(cut(frame.image, box, CROP_PX).image, frame.pts_ns) is not None
    return count


def main() -> None:
    parser = Parser(prog="python -m benchmarks.dissolves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FLASHLIPS_DATA") or "../shared/data"))
    options = parser.parse_args()
    cases = [(options.data / a, options.data / b, n) for (a, b), n in product(permutations(PEOPLE, 2), LENGTHS)]
    videos = find_videos([options.data])
    with worker_pool(2) as pool:
        failed = [case for case, wrong in zip(cases, tqdm(pool.map(missed, *zip(*cases)), total=len(cases))) if wrong]
        print(f"{len(failed)} of {len(cases)} dissolves left in a clip", *(f"{a.stem} {b.stem} {n}" for a, b, n in failed), sep="\n  ")
        wrong = [path for path, count in zip(videos, tqdm(pool.map(false_ones, videos), total=len(videos))) if count]
        print(f"{len(wrong)} of {len(videos)} videos of one scene with a dissolve found", *wrong, sep="\n  ")


if __name__ == "__main__":
    with one_sentence("benchmarks.dissolves"):
        main()
