"""Speech and the lips that go with it on one clock, 25 steps a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from flashlips_edge.models.editor import LIPS
from flashlips_edge.speech.features import SAMPLES_PER_STEP, STEP_RATE_HZ
from flashlips_edge.training.clips import Clip

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")  # of CREMA-D's file names; all zeros where nobody said
SYNTHETIC = -1  # place in the emotion vector that marks the synthetic head's way of speaking, which is nobody's
MARGIN_STEPS = 15  # of silence around a clip
CLOSING_STEPS = 5  # of them, in which the lips close
CLOSED_SHARE = 0.1  # of a clip's steps, the most closed ones, whose mean is the closed mouth

Lips = Callable[[np.ndarray], np.ndarray]  # crops uint8 [T, S, S, 3] -> lips vectors float32 [T, 12]


@dataclass(frozen=True)
class Track:
    """What one person says and shows: waveform float32 [640 T] at 16 kHz, lips float32 [T, 12], emotion float32 [E]."""

    name: str
    waveform: np.ndarray
    lips: np.ndarray
    emotion: np.ndarray

    @property
    def set_name(self) -> str:
        return self.name.split(".")[0]


def lips_of(student: nn.Module, face_size: int) -> Lips:
    """What gives the lips vectors of crops: the lips encoder, on faces of ``face_size`` px."""

    @torch.no_grad()
    def lips(crops: np.ndarray) -> np.ndarray:
        faces = np.stack([cv2.resize(c, (face_size, face_size), interpolation=cv2.INTER_AREA) for c in crops])
        return student(torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255).float().numpy()

    return lips


def resting(lips: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """The most closed [n, 12] of lips [T, 12]; ``opening`` [12] is the direction along which mouths open."""
    return lips[np.argsort(lips @ opening)[: max(1, round(CLOSED_SHARE * len(lips)))]]


def closed_mouth(lips: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """The closed mouth [12] among lips [T, 12]: the mean of those at rest."""
    return resting(lips, opening).mean(0)


def with_margins(name: str, waveform: np.ndarray, lips: np.ndarray, emotion: np.ndarray, opening: np.ndarray) -> Track:
    """A track of speech and lips, silence on either side in which the mouth is closed."""
    steps = min(len(waveform) // SAMPLES_PER_STEP, len(lips))
    silence = np.zeros(MARGIN_STEPS * SAMPLES_PER_STEP, np.float32)
    closed = np.repeat(closed_mouth(lips, opening)[None], MARGIN_STEPS - CLOSING_STEPS, axis=0)
    share = np.linspace(0, 1, CLOSING_STEPS + 2)[1:-1, None]  # of the clip's own lips
    before, after = (closed[:1] * (1 - share) + edge * share for edge in (lips[0], lips[steps - 1]))
    return Track(
        name,
        np.concatenate([silence, waveform[: steps * SAMPLES_PER_STEP], silence]),
        np.concatenate([closed, before, lips[:steps], after[::-1], closed]).astype(np.float32),
        emotion,
    )


def track_of(clip: Clip, lips: Lips, opening: np.ndarray, emotions: int) -> Track:
    """A clip with sound as a track."""
    assert clip.audio is not None
    recorded = lips(clip.crops)
    times = np.arange(int(clip.pts_ns[-1] * STEP_RATE_HZ // 1_000_000_000) + 1) * (1_000_000_000 / STEP_RATE_HZ)
    at_steps = np.stack([np.interp(times, clip.pts_ns, recorded[:, i]) for i in range(LIPS)], 1)
    emotion = np.zeros(emotions, np.float32)
    for i, name in enumerate(EMOTIONS):
        emotion[i] = f"_{name}_" in clip.name
    return with_margins(clip.name, clip.audio, at_steps, emotion, opening)


def load_tracks(clips: list[Clip], lips: Lips, opening: np.ndarray, emotions: int) -> list[Track]:
    """The tracks of all clips in which somebody speaks."""
    return [track_of(c, lips, opening, emotions) for c in tqdm(clips, desc="lips", unit="clip") if c.audio is not None]
