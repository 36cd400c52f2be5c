"""Prepared clips on disk, read through memory maps and drawn with the same weight per speaker set, not per minute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from flashlips_edge.errors import UserError

SET_WEIGHT = {"grid_s1": 0.42, "grid_multi": 0.36, "crema_d": 0.1, "synthetic": 0.1, "demo": 0.02}  # one man fills the minutes


@dataclass(frozen=True)
class Clip:
    """One prepared video: crops uint8 [T, S, S, 3], pts_ns int64 [T], audio float32 [N] at 16 kHz."""

    folder: Path

    @property
    def set_name(self) -> str:
        return self.folder.name.split(".")[0]

    @cached_property
    def crops(self) -> np.ndarray:
        return np.load(self.folder / "crops.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def pts_ns(self) -> np.ndarray:
        return np.load(self.folder / "pts_ns.npy", allow_pickle=False)

    @cached_property
    def audio(self) -> np.ndarray:
        return np.load(self.folder / "audio.npy", allow_pickle=False)

    @property
    def held_out(self) -> bool:
        """One clip in ten, by name, watches the training; the test folder is never touched."""
        return sum(self.folder.name.encode()) % 10 == 0


def load_clips(folder: Path) -> list[Clip]:
    """Every prepared clip of ``folder``, sorted by name. Raises UserError when there is none."""
    clips = [Clip(p.parent) for p in sorted(folder.glob("*/crops.npy"))]
    if not clips:
        raise UserError(f"--clips {folder}: no prepared clips; run python -m flashlips_edge.training.prepare first")
    return clips


def set_weights(clips: list[Clip]) -> np.ndarray:
    """Probability float64 [len(clips)] of drawing each clip: sets by SET_WEIGHT, clips of a set alike."""
    counts = {name: sum(c.set_name == name for c in clips) for name in {c.set_name for c in clips}}
    weights = np.array([SET_WEIGHT.get(c.set_name, 0.2) / counts[c.set_name] for c in clips])
    return weights / weights.sum()
