"""Videos of the synthetic head for those who have none: what low precision is calibrated on where nobody named any."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from flashlips_edge.media.audio_file import SPEECH_RATE_HZ, read_audio
from flashlips_edge.media.video_writer import VideoWriter
from flashlips_edge.training.synthetic_clips import random_lips
from flashlips_edge.training.synthetic_head import Identity, Pose, idle_pose_track, render
from flashlips_edge.training.synthetic_head.demo import ASSETS

SEEDS = range(1010, 1020)  # those before them are in every calibration set
RATE_HZ, FRAMES = 25, 75
LIPS_HELD = 5  # frames: calibration looks at one in five
SIZE = (256, 256)
VOICES = (0.8, 1.3)  # how fast, and so how high, the bundled speech is said
LOUDNESS = (0.1, 1.0)


def draw(folder: Path) -> None:
    """Write a video for each of ten people, three seconds of the bundled speech in a voice of their own. The same every time.

    Lips and sound do not belong together: calibration wants to see what there is, and takes each by itself."""
    speech = read_audio(ASSETS / "speech.flac")
    for seed in tqdm(SEEDS, "people", unit="person", leave=False):
        generator = np.random.default_rng(seed)
        voice = soxr.resample(speech, SPEECH_RATE_HZ * generator.uniform(*VOICES), SPEECH_RATE_HZ)
        length = FRAMES * SPEECH_RATE_HZ // RATE_HZ
        start = int(generator.integers(len(voice) - length))
        sound = voice[start : start + length] * np.float32(generator.uniform(*LOUDNESS))
        identity, lips = Identity.from_seed(seed), random_lips(generator)
        base = Pose(yaw=float(generator.uniform(-0.3, 0.3)), scale=0.7)
        with VideoWriter(folder / f"{seed}.mp4", *SIZE, Fraction(RATE_HZ), audio=(sound, SPEECH_RATE_HZ)) as writer:
            for number, pose in enumerate(idle_pose_track(seed, FRAMES, RATE_HZ, base)):
                if number % LIPS_HELD == 0:
                    lips = random_lips(generator)
                writer.write(render(identity, pose, lips, SIZE), number * 1_000_000_000 // RATE_HZ)
