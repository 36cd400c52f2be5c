"""Ways of giving a clip lips: the bundle's own, and three that give every figure its scale.

ours    the run path hears the speech
copy    the source, merely encoded again: an upper bound for the picture; leaks the source's lips entirely
random  the same networks with lips vectors drawn at random: spread and tempo of the face's own, no relation to the speech
frozen  the same networks hear digital silence: the mouth stays closed
"""

from __future__ import annotations

import zlib
from contextlib import closing
from pathlib import Path

import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.evaluation.pictures import lips_of
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.media.audio_file import Sound
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter
from flashlips_edge.recorded import lip_sync_recording
from flashlips_edge.speech.features import SAMPLE_RATE_HZ
from flashlips_edge.talking.lips import STEP_NS
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.talker import Talker

SYSTEMS = ("copy", "ours", "random", "frozen")
TEMPO = 0.6  # correlation of a random lips vector with the one 40 ms before


def ours(bundle: Bundle, video: Path, sound: np.ndarray, out: Path) -> None:
    """The video speaks a sound, float32 [N] at 16 kHz, through the run path; the result is as long as the sound."""
    with Talker(bundle) as talker:
        report = lip_sync_recording(talker, video, Sound(sound[:, None].astype(np.float32), SAMPLE_RATE_HZ), out=out)
    if report.interrupted:  # a run takes Ctrl-C as a wish for a shorter file; here it is meant for the whole evaluation
        raise KeyboardInterrupt


def copy(clip: Recording, out: Path) -> None:
    """The clip's frames, as far as it is looked at, through the project's writer and nothing else."""
    with VideoFile(clip.path) as video, VideoWriter(out, video.width, video.height, video.frame_rate) as writer:
        for frame in video:
            if frame.pts_ns > clip.pts_ns[-1]:
                break
            writer.write(frame)


def random(bundle: Bundle, networks: Networks, clip: Recording, out: Path) -> None:
    """The clip with random lips."""
    steps = clip.duration_ns // STEP_NS + 1
    lips = random_lips(lips_of(networks, clip.crops), steps, zlib.crc32(clip.name.encode()))
    with Talker(bundle) as talker:
        avatar = talker.use_avatar(clip.path)
        for step, vector in enumerate(lips):
            talker.lips.append(step * STEP_NS, vector)
        talker.finish(clip.duration_ns)
        with (
            VideoWriter(out, avatar.clip.width, avatar.clip.height, avatar.frame_rate) as writer,
            closing(talker.frames()) as frames,
        ):
            for frame in frames:
                writer.write(frame)


def random_lips(lips: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """Lips vectors float32 [steps, 12] with mean and covariance of `lips` [T, 12] and a first-order memory of 80 ms."""
    draw = np.random.default_rng(seed)
    noise = draw.multivariate_normal(np.zeros(lips.shape[1]), np.cov(lips.T), steps, method="eigh")
    for step in range(1, steps):
        noise[step] = TEMPO * noise[step - 1] + np.sqrt(1 - TEMPO**2) * noise[step]
    return (lips.mean(0) + noise).astype(np.float32)
