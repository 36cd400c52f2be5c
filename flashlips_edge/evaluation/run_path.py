"""The whole run path as a user starts it, `python -m flashlips_edge.run`, and what came out, read back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.face.crop import cut
from flashlips_edge.media.video_file import VideoFile

LIMIT_S = 1800


def lip_sync(out: Path, bundle: str, **options: str | Path | int) -> str:
    """Runs `--avatar`, `--audio`, `--driver`, ... to the video `out` and gives what it printed.

    RuntimeError where it fails, or is not done in 30 minutes."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "flashlips_edge.run", "--bundle", bundle, "--out", str(out), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{' '.join(command)} was not done after {LIMIT_S} s") from None
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


def frames_with(result: Path, avatar: Recording) -> Iterator[tuple[int, np.ndarray]]:
    """Position in the avatar's clip and RGB picture of each of the result's frames, as far as both go."""
    position = {int(number): i for i, number in enumerate(avatar.numbers)}
    with VideoFile(result) as video:
        for number, frame in enumerate(video):
            if number in position:
                yield position[number], frame.image


def read_crops(result: Path, avatar: Recording, which: np.ndarray) -> list[np.ndarray]:
    """The result's crops uint8 [S, S, 3] at these positions of the avatar's clip."""
    wanted, size = set(which.tolist()), avatar.crops.shape[1]
    return [cut(image, avatar.boxes[i], size).image for i, image in frames_with(result, avatar) if i in wanted]
