"""What came out: a finished video read back, and held against the speech that it should show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.evaluation.landmarks import LipReader, lips_of, opening_of
from flashlips_edge.evaluation.recordings import Recording, recorded_at
from flashlips_edge.evaluation.run_path import frames_with
from flashlips_edge.face.crop import cut
from flashlips_edge.speech.features import SAMPLE_RATE_HZ
from flashlips_edge.speech.silence import speech_steps
from flashlips_edge.talking.lips import STEP_NS


@dataclass(frozen=True, eq=False)
class Speech:
    """What a clip is to say: `sound` float32 [N] at 16 kHz, and what the recording it is from shows at the clip's frames:
    openings [T] and the lip points' way from their mean [T, 18, 2]; None without landmarks."""

    sound: np.ndarray
    openings: np.ndarray | None
    motion: np.ndarray | None

    @staticmethod
    def of(recording: Recording, clip: Recording, shift_ns: int = 0) -> Speech:
        """The recording's sound from `shift_ns` on, gone round, for the clip."""
        sound = np.roll(recording.sound(), -(shift_ns * SAMPLE_RATE_HZ // 1_000_000_000))
        if recording.points is None:
            return Speech(sound, None, None)
        times = clip.pts_ns + shift_ns
        motion = lips_of(recording.points) - recording.lips_mean
        return Speech(sound, recorded_at(recording, recording.openings, times), recorded_at(recording, motion, times))

    def heard(self, pts_ns: np.ndarray) -> np.ndarray:
        """Whether a voice is heard at these times of the clip, [N] -> bool [N]."""
        steps = speech_steps(self.sound)
        return steps[np.minimum(pts_ns // STEP_NS, len(steps) - 1)]


@dataclass(frozen=True, eq=False)
class Result:
    """A video of a clip, read in the clip's own boxes: at `positions` int [N] of the clip crops uint8 [N, S, S, 3] and landmarks
    `points` float32 [N, 66, 2], None without a landmark network."""

    clip: Recording
    positions: np.ndarray
    crops: np.ndarray
    points: np.ndarray | None

    @staticmethod
    def read(video: Path, clip: Recording, reader: LipReader | None) -> Result:
        """All frames that both the video and the clip have; UserError where there are none."""
        positions, crops, points = [], [], []
        for i, image in frames_with(video, clip):
            positions.append(i)
            crops.append(cut(image, clip.boxes[i], clip.crops.shape[1]).image)
            if reader is not None:
                points.append(reader(image, clip.boxes[i]).points)
        if not positions:
            raise UserError(f"{clip.path} shows its first face only after the sound that it is to speak has ended.")
        return Result(clip, np.array(positions), np.stack(crops), np.stack(points) if points else None)

    @cached_property
    def openings(self) -> np.ndarray:
        """Inner-lip opening of each frame, float64 [N]; only with landmarks."""
        assert self.points is not None
        return np.array([opening_of(points) for points in self.points])

    @property
    def motion(self) -> np.ndarray:
        """The lip points' way [N, 18, 2] from the mean of the clip's own recording; only with landmarks."""
        assert self.points is not None
        return lips_of(self.points) - self.clip.lips_mean

    @property
    def pts_ns(self) -> np.ndarray:
        return self.clip.pts_ns[self.positions]

    def until(self, end_ns: int) -> Result:
        """The part before a time."""
        keep = self.pts_ns < end_ns
        points = self.points[keep] if self.points is not None else None
        return Result(self.clip, self.positions[keep], self.crops[keep], points)
