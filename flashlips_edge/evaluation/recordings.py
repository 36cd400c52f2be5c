"""Clips as the measures see them: crops, boxes and landmarks of every frame, and the sound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.evaluation.folder import name_of, videos_in
from flashlips_edge.evaluation.landmarks import LipReader, lips_of, opening_of
from flashlips_edge.face.crop import cut
from flashlips_edge.face.detect import Box, HaarDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.audio_file import read_audio
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.speech.features import SAMPLE_RATE_HZ

LIMIT_NS = 10_000_000_000  # what is looked at of a clip
LEAST_FRAMES = 25
LEAST_LEVEL = 1e-3  # of full scale


@dataclass(frozen=True, eq=False)
class Recording:
    """Every frame of a video's first ten seconds in which the run path's tracker has a face, T of them.

    numbers   int [T]: which frame of the video
    pts_ns    int [T]
    boxes     list of T boxes
    crops     uint8 [T, S, S, 3]
    points    float32 [T, 66, 2]: landmarks in pixels of the frame; None without a landmark network
    """

    path: Path
    numbers: np.ndarray
    pts_ns: np.ndarray
    boxes: list[Box]
    crops: np.ndarray
    points: np.ndarray | None

    @classmethod
    def open(cls, path: Path, crop_size: int, reader: LipReader | None, store: Path, limit_ns: int = LIMIT_NS) -> Recording:
        """Reads the video up to `limit_ns`, or to 25 faces where that is later; the crops lie in the folder `store`, not in memory.

        UserError where fewer than 25 frames of its first ten seconds show a face."""
        boxes: list[Box] = []
        numbers, pts_ns, crops, points = [], [], [], []
        with VideoFile(path) as video:
            tracker = FaceTracker(HaarDetector(), float(video.frame_rate))
            for number, frame in enumerate(video):
                if frame.pts_ns >= (limit_ns if len(boxes) >= LEAST_FRAMES else LIMIT_NS):
                    break
                box = tracker.update(frame.luma, frame.pts_ns)
                if box is not None:
                    numbers.append(number)
                    pts_ns.append(frame.pts_ns)
                    boxes.append(box)
                    crops.append(cut(frame.image, box, crop_size).image)
                    if reader is not None:
                        points.append(reader(frame.image, box).points)
        if len(boxes) < LEAST_FRAMES:
            raise UserError(f"{path} shows a face in {len(boxes)} of its frames; at least {LEAST_FRAMES} are needed.")
        stored = store / f"{len(list(store.iterdir()))}.npy"
        np.save(stored, np.stack(crops))
        landmarks = np.stack(points) if points else None
        return cls(path, np.array(numbers), np.array(pts_ns), boxes, np.load(stored, mmap_mode="r"), landmarks)

    @cached_property
    def openings(self) -> np.ndarray:
        """Inner-lip opening of each frame, float64 [T]; only with landmarks."""
        assert self.points is not None
        return np.array([opening_of(points) for points in self.points])

    @cached_property
    def lips_mean(self) -> np.ndarray:
        """The mean of the lip points [18, 2], as landmarks.lips_of gives them; only with landmarks."""
        assert self.points is not None
        return lips_of(self.points).mean(0)

    def extremes(self, which: np.ndarray) -> np.ndarray:
        """Of these positions the one with the mouth most closed and the one with it most open; any two without landmarks."""
        return which[np.argsort(self.openings[which])[[0, -1]]] if self.points is not None else which[[0, len(which) // 2]]

    @property
    def name(self) -> str:
        """The set and the clip; with its suffix where another video of the folder differs in nothing else."""
        alike = [path for path in videos_in(self.path.parent) if path.stem == self.path.stem]
        return f"{name_of(self.path.parent)}.{self.path.name if len(alike) > 1 else self.path.stem}"

    @property
    def speaker(self) -> str:
        """Who speaks: GRID's `s31_` before the name, `_s1` at the end of the folder's, else the clip stands for itself."""
        named = re.match(r"(s\d+)_", self.path.name) or re.search(r"_(s\d+)$", self.path.parent.name)
        return named.group(1) if named else self.path.name

    @property
    def duration_ns(self) -> int:
        """Up to the end of the last frame."""
        return int(self.pts_ns[-1] + np.median(np.diff(self.pts_ns)))

    @property
    def is_cut(self) -> bool:
        """Whether the video goes on for more than a second after what is looked at."""
        with VideoFile(self.path) as video:
            return video.duration_ns > self.duration_ns + 1_000_000_000

    def sound(self) -> np.ndarray:
        """Its sound, float32 [N] at 16 kHz, exactly as long as `duration_ns`: cut, or silent at the end.

        UserError where the video has no sound, or nothing is to be heard."""
        length = self.duration_ns * SAMPLE_RATE_HZ // 1_000_000_000
        sound = read_audio(self.path)[:length]
        if np.abs(sound).max(initial=0) < LEAST_LEVEL:
            raise UserError(f"{self.path} is silent in its first {self.duration_ns * 1e-9:.0f} s.")
        return np.pad(sound, (0, length - len(sound)))

    def pictures(self, which: np.ndarray) -> list[np.ndarray]:
        """The whole frames, uint8 RGB [H, W, 3], at these positions of the clip, in their order in the video."""
        wanted = set(self.numbers[which].tolist())
        with VideoFile(self.path) as video:
            return [frame.image for number, frame in enumerate(islice(video, max(wanted) + 1)) if number in wanted]


def recorded_at(clip: Recording, track: np.ndarray, pts_ns: np.ndarray) -> np.ndarray:
    """A track [T, ...] of the clip's frames at these times [N], round and round past its end; linear in between."""
    place = np.interp(pts_ns % clip.duration_ns, clip.pts_ns, np.arange(len(track)))
    before = np.minimum(place.astype(int), len(track) - 1)
    after = np.minimum(before + 1, len(track) - 1)
    share = (place - before).reshape(-1, *[1] * (track.ndim - 1))
    return track[before] * (1 - share) + track[after] * share


def partners(clips: list[Recording]) -> Iterator[tuple[Recording, Recording]]:
    """Each clip as an avatar with the next clip of the same speaker, the last with the first.

    A speaker's only clip goes with the set's next clip whoever speaks there, a set's only clip with itself."""
    for clip in clips:
        same = [other for other in clips if other.speaker == clip.speaker]
        choice = same if len(same) > 1 else clips
        yield clip, choice[(choice.index(clip) + 1) % len(choice)]
