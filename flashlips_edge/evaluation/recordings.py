"""Test clips as the measures see them: crops, boxes and openings of every frame, and the sound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.evaluation.landmarks import LipReader
from flashlips_edge.face.crop import cut
from flashlips_edge.face.detect import Box, HaarDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.audio_file import read_audio
from flashlips_edge.media.video_file import VideoFile

SETS = ("grid_s1", "grid_unseen", "video")
SUFFIXES = {".mpg", ".mp4", ".mov", ".mkv", ".webm", ".avi"}


@dataclass(frozen=True)
class Recording:
    """Every frame of a video in which the run path's tracker has a face, T of them.

    numbers   int [T]: which frame of the video
    pts_ns    int [T]
    boxes     list of T boxes
    crops     uint8 [T, S, S, 3]
    openings  float64 [T]: inner-lip opening, as landmarks.py reads it
    """

    path: Path
    numbers: np.ndarray
    pts_ns: np.ndarray
    boxes: list[Box]
    crops: np.ndarray
    openings: np.ndarray

    @classmethod
    def open(cls, path: Path, crop_size: int, reader: LipReader, limit: int | None = None) -> Recording:
        """Reads the video, or its first `limit` frames. UserError where it shows no face."""
        numbers, pts_ns, boxes, crops, openings = [], [], [], [], []
        with VideoFile(path) as video:
            tracker = FaceTracker(HaarDetector(), float(video.frame_rate))
            for number, frame in enumerate(islice(video, limit)):
                box = tracker.update(frame.luma, frame.pts_ns)
                if box is not None:
                    numbers.append(number)
                    pts_ns.append(frame.pts_ns)
                    boxes.append(box)
                    crops.append(cut(frame.image, box, crop_size).image)
                    openings.append(reader(frame.image, box).opening)
        if not boxes:
            raise UserError(f"{path} shows no face; a test clip must show one.")
        return cls(path, np.array(numbers), np.array(pts_ns), boxes, np.stack(crops), np.array(openings))

    @property
    def speaker(self) -> str:
        """Who speaks: GRID's `s31_` before the name, `_s1` at the end of the folder's, else the clip stands for itself."""
        named = re.match(r"(s\d+)_", self.path.name) or re.search(r"_(s\d+)$", self.path.parent.name)
        return named.group(1) if named else self.path.stem

    @property
    def duration_ns(self) -> int:
        """Up to the end of the last frame."""
        return int(self.pts_ns[-1] + np.median(np.diff(self.pts_ns)))

    def sound(self) -> np.ndarray:
        """Its sound, float32 [N] at 16 kHz."""
        return read_audio(self.path)

    def pictures(self, which: np.ndarray) -> list[np.ndarray]:
        """The whole frames, uint8 RGB [H, W, 3], at these positions of the clip, in their order in the video."""
        wanted = set(self.numbers[which].tolist())
        with VideoFile(self.path) as video:
            return [frame.image for number, frame in enumerate(video) if number in wanted]


def videos_of(data: Path, set_name: str, quick: bool) -> list[Path]:
    """The set's videos by name; `quick` keeps the first and the last (grid_unseen: one of each speaker).

    UserError where the folder is missing or empty."""
    folder = data / "test" / set_name
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise UserError(f"--data {data} holds no videos in test/{set_name}; it must be the folder of the recorded data.")
    return sorted({paths[0], paths[-1]}) if quick else paths


def partners(clips: list[Recording]) -> Iterator[tuple[Recording, Recording]]:
    """Each clip as an avatar with the next clip of the same speaker, the last with the first; alone: with itself."""
    for clip in clips:
        same = [other for other in clips if other.speaker == clip.speaker]
        yield clip, same[(same.index(clip) + 1) % len(same)]
