"""Speed of the whole run path as a user starts it. Only worth anything while nothing else runs."""

from __future__ import annotations

import re
import time
from pathlib import Path

import soundfile

from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.evaluation.run_path import lip_sync
from flashlips_edge.speech.features import SAMPLE_RATE_HZ

THREADS = 2
REPEATS = 3


def measure(clip: Recording, bundle: str, work: Path) -> dict[str, float]:
    """The clip speaks its own sound: the best of three runs.

    frames_per_second   as the run counts: decode to encode, without the program's start
    with_start          the same with the program's start: imports and loading the networks
    share.<stage>       of the work; stages overlap, so that the shares are not of the wall clock"""
    audio = clip.path
    if clip.is_cut:  # the run ends with its sound: of a long video, what is looked at
        audio = work / "speed.wav"
        soundfile.write(audio, clip.sound(), SAMPLE_RATE_HZ)
    best: dict[str, float] = {}
    for _ in range(REPEATS):
        start = time.monotonic()
        printed = lip_sync(work / "speed.mp4", bundle, avatar=clip.path, audio=audio, threads=THREADS)
        metrics = parse(printed, time.monotonic() - start)
        if metrics["frames_per_second"] > best.get("frames_per_second", 0):
            best = metrics
    return best


def parse(printed: str, wall_s: float) -> dict[str, float]:
    """The figures in what a run prints: `250 frames in 8.1 s, 30.9 frames per second` and `share of the work: decode 12%, ...`."""
    counted = re.search(r"(\d+) frames in [\d.]+ s, ([\d.]+) frames per second", printed)
    if counted is None:
        raise RuntimeError(f"the run printed no frames per second: {printed[-400:]}")
    stages = re.findall(r"([a-z]+) (\d+)%", printed)
    return {
        "frames_per_second": float(counted.group(2)),
        "with_start": int(counted.group(1)) / wall_s,
        **{f"share.{stage}": int(percent) / 100 for stage, percent in stages},
    }
