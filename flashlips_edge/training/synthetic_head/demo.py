"""The demo's own material: an avatar that idles and speaks, and a friendly voice. Made here, so that anyone may pass it on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from flashlips_edge.files import atomic_path
from flashlips_edge.training.synthetic_head.identity import Identity, Light, linear
from flashlips_edge.training.synthetic_head.lips import Lips
from flashlips_edge.training.synthetic_head.pose import Pose, idle_pose_track
from flashlips_edge.training.synthetic_head.render import render
from flashlips_edge.training.synthetic_head.speech import SAMPLE_RATE_HZ, speak
from flashlips_edge.training.synthetic_head.visemes import lips_track

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SEED = 57
SIZE = (512, 512)
RATE_HZ = 25
AVATAR_TEXT = "Good morning. We have all the time in the world; please ask me about anything you like."
SPEECH_TEXTS = ("Hello, my lips are moved by this very device.", "Just a voice and a face that speaks it, right here.")
VOICE = "en-gb+f2"
PAUSE_S = 0.7
BEFORE_S, AFTER_S = 1.0, 1.2  # closed lips at both ends of the avatar
QUIET = 0.01


def avatar_identity() -> Identity:
    """One of the people, well lit before a calm backdrop."""
    someone = Identity.from_seed(SEED)
    return replace(
        someone,
        eye_height=0.92 * someone.eye_height,
        mouth_curve=0.035,
        brow_thickness=1.3 * someone.brow_thickness,
        lash=0.95,
        lip_colour=linear((182, 88, 84)),
        lip_gloss=0.4,
        freckles=0.0,
        hair_colour=linear((74, 50, 38)),
        cloth=linear((36, 104, 120)),
        collar="vee",
        backdrop="gradient",
        backdrop_colour=linear((206, 214, 220)),
        backdrop_second=linear((150, 172, 186)),
        light=Light(azimuth=-0.45, elevation=0.5, key=(0.86, 0.80, 0.74), sky=(0.36, 0.37, 0.39), ground=(0.30, 0.28, 0.26), hardness=0.4),
    )


def avatar_frames() -> Iterator[np.ndarray]:
    """The avatar, uint8 RGB: lips closed, then speaking, then closed."""
    _, phonemes = speak(AVATAR_TEXT, VOICE, words_per_minute=165)
    spoken = lips_track(phonemes, RATE_HZ)
    track = [Lips()] * round(BEFORE_S * RATE_HZ) + spoken + [Lips()] * round(AFTER_S * RATE_HZ)
    poses = idle_pose_track(5, len(track), RATE_HZ, Pose(scale=0.60, y=-0.05))
    identity = avatar_identity()
    for pose, lips in zip(poses, track, strict=True):
        yield render(identity, pose, lips, SIZE)


def voice() -> np.ndarray:
    """The demo's speech, float32 [N] at 16 kHz: two sentences with a pause of 0.7 s."""
    first, second = (_trimmed(speak(text, VOICE, words_per_minute=160)[0]) for text in SPEECH_TEXTS)
    edge, pause = (np.zeros(round(s * SAMPLE_RATE_HZ), np.float32) for s in (0.25, PAUSE_S))
    waveform = np.concatenate([edge, first, pause, second, edge])
    return waveform * (0.7 / np.abs(waveform).max())


def _trimmed(waveform: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(waveform) > QUIET)
    return waveform[loud[0] : loud[-1] + 1]


def write(folder: Path = ASSETS) -> tuple[Path, Path]:
    """Write avatar.mp4 and speech.flac into ``folder``; gives both paths."""
    import soundfile  # who only draws the avatar needs neither this nor PyAV

    from flashlips_edge.media.video_writer import VideoWriter

    avatar, speech = folder / "avatar.mp4", folder / "speech.flac"
    with atomic_path(speech) as temporary:
        soundfile.write(temporary, voice(), SAMPLE_RATE_HZ, subtype="PCM_16")
    height, width = SIZE
    with VideoWriter(avatar, width, height, Fraction(RATE_HZ), preset="slow", crf=15) as writer:
        for i, frame in enumerate(avatar_frames()):
            writer.write(frame, i * 1_000_000_000 // RATE_HZ)
    return avatar, speech
