"""SyncNet's recipe: vectors of a mouth and of the sound at the same moment are alike, those of other moments and other clips are not.

python -m flashlips_edge.training.syncnet --clips work/clips --out work/syncnet
python -m flashlips_edge.training.syncnet --clips work/other_clips --out weights/syncnet --measure
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path
from flashlips_edge.models.syncnet import BOX, HEIGHT, REACH, WIDTH, SyncNet, frames_at_25_hz, load_syncnet, sync_score
from flashlips_edge.speech.features import SAMPLES_PER_STEP, log_mel
from flashlips_edge.training.clips import Clip, load_clips, set_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.loop import Losses, Schedule, train

CLIPS = 12  # in a batch
STEPS = 28  # of 40 ms in each: all the other 23 moments are offsets to tell apart
TEMPERATURE = 0.07
FEW, ALL = (-8, -3, 0, 5), range(-8, 9)  # frames by which the sound is moved, to see whether that is found


class Draw:
    """A batch: mouths float32 [B, T, 48, 96] in [0, 1] and mel float32 [B, 4 * T, 80] of the same moments, both disguised."""

    def __init__(self, clips: list[Clip]) -> None:
        self.clips, self.chances = clips, set_weights(clips)

    def __call__(self, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        rows = [self.row(self.clips[i], generator) for i in generator.choice(len(self.clips), CLIPS, p=self.chances)]
        mouths, mel = zip(*rows)
        return torch.from_numpy(np.stack(mouths)), torch.from_numpy(np.stack(mel))

    @staticmethod
    def row(clip: Clip, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        assert clip.audio is not None
        frames = frames_at_25_hz(clip.pts_ns)
        start = int(generator.integers(min(len(frames), len(clip.audio) // SAMPLES_PER_STEP) - STEPS + 1))
        first = max(0, start * SAMPLES_PER_STEP + int(generator.normal(0, 80)))  # real clips are never exact to the millisecond
        waveform = clip.audio[first : first + STEPS * SAMPLES_PER_STEP]
        waveform = np.pad(waveform, (0, STEPS * SAMPLES_PER_STEP - len(waveform)))
        return another_mouth(clip.crops[frames[start : start + STEPS]], generator), another_sound(waveform, generator)


def another_mouth(crops: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Grey mouths float32 [T, 48, 96] of crops uint8 [T, S, S, 3]: warped and mirrored as one, in another light, with noise."""
    size = crops.shape[1]
    y, x = (np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5) / np.array([HEIGHT, WIDTH])[:, None, None] - 0.5
    height, width = BOX[1] - BOX[0], BOX[3] - BOX[2]
    x, y = x * width * generator.normal(1, 0.09) * generator.choice([-1, 1]), y * height * generator.normal(1, 0.09)
    angle = generator.normal(0, 0.1)
    bumps = cv2.resize(generator.normal(0, 0.012, (3, 4, 2)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grid_x = np.cos(angle) * x - np.sin(angle) * y + (BOX[2] + BOX[3]) / 2 + generator.normal(0, 0.025) + bumps[..., 0]
    grid_y = np.sin(angle) * x + np.cos(angle) * y + (BOX[0] + BOX[1]) / 2 + generator.normal(0, 0.025) + bumps[..., 1]
    shake = generator.normal(0, generator.uniform(0, 0.004), (len(crops), 2))
    blur, gamma = generator.uniform(0.3, 1.2), generator.uniform(0.6, 1.6)
    result = np.empty((len(crops), HEIGHT, WIDTH), np.float32)
    for i, crop in enumerate(crops):
        grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
        maps = [((grid + shift) * size - 0.5).astype(np.float32) for grid, shift in zip((grid_x, grid_y), shake[i])]
        mouth = cv2.remap(grey, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        result[i] = cv2.GaussianBlur(mouth, (0, 0), blur) if blur > 0.6 else mouth
    result = (result / 255) ** gamma * generator.uniform(0.6, 1.3) + generator.normal(0, 0.08)
    result *= 1 + np.linspace(-1, 1, WIDTH, dtype=np.float32) * np.float32(generator.normal(0, 0.15))  # light from one side
    noise = generator.standard_normal(result.shape, np.float32) * np.float32(generator.uniform(0, 0.03))
    return np.clip(result + noise, 0, 1, dtype=np.float32)


def another_sound(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Log-mel float32 [4 * T, 80] of float32 [640 * T]: another level, noise and voice."""
    level = np.sqrt(np.mean(np.square(waveform))) + 1e-4
    noise = generator.standard_normal(len(waveform), np.float32)
    if generator.random() < 0.5:
        noise = np.cumsum(noise)  # rumble instead of hiss
    noise *= level * 10 ** generator.uniform(-2.5, -0.4) / (noise.std() + 1e-6)
    mel = log_mel(((waveform + noise) * np.exp(generator.normal(0, 0.7))).astype(np.float32))
    bands = np.arange(mel.shape[1])
    source = np.clip(bands * generator.normal(1, 0.05) + generator.normal(0, 1.5), 0, len(bands) - 1)
    low = source.astype(int)
    share = (source - low).astype(np.float32)
    mel = mel[:, low] * (1 - share) + mel[:, np.minimum(low + 1, len(bands) - 1)] * share
    return mel + np.linspace(-1, 1, len(bands), dtype=np.float32) * np.float32(generator.normal(0, 0.06))


def contrast(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Losses:
    """Cross entropy of finding each picture's sound, and each sound's picture, among all moments of all clips (InfoNCE)."""
    video, sound = (vectors.float().flatten(0, 1) for vectors in module(*batch))
    logits = video @ sound.T / TEMPERATURE
    truth = torch.arange(len(logits), device=logits.device)
    return {"hears": F.cross_entropy(logits, truth) / 2, "watches": F.cross_entropy(logits.T, truth) / 2}


def moved(waveform: np.ndarray, frames: int) -> np.ndarray:
    """The sound ``frames`` of 40 ms late, or early when negative; as long as before, the gap is silent."""
    samples = frames * SAMPLES_PER_STEP
    if samples < 0:
        return np.pad(waveform[-samples:], (0, -samples))
    return np.pad(waveform, (samples, 0))[: len(waveform)]


def found(network: SyncNet, clips: list[Clip], shifts: Iterable[int]) -> dict[str, float]:
    """By set: the share of known offsets that are found within one frame, and the mean confidence."""
    result: dict[str, float] = {}
    for name in sorted({clip.set_name for clip in clips}):
        hits, confidence = [], []
        for clip in (c for c in clips if c.set_name == name):
            assert clip.audio is not None
            crops = clip.crops[frames_at_25_hz(clip.pts_ns)]
            for shift in shifts:
                sync = sync_score(network, crops, log_mel(moved(clip.audio, shift)))
                hits.append(abs(sync.offset - shift) <= 1)
                confidence.append(sync.confidence)
        result |= {f"{name}_found": float(np.mean(hits)), f"{name}_confidence": float(np.mean(confidence))}
    return result


def main(
    clips: Annotated[Path, typer.Option(help="folder that prepare wrote")] = Path("work/clips"),
    out: Annotated[Path, typer.Option(help="folder for syncnet.safetensors")] = Path("work/syncnet"),
    steps: Annotated[int, typer.Option(help="optimiser steps")] = 1200,
    measure: Annotated[bool, typer.Option(help="train nothing: by set, which offsets the weights in --out find in all the clips")] = False,
) -> None:
    """Train SyncNet on every clip that somebody speaks in."""
    spoken = [c for c in load_clips(clips) if c.audio is not None and len(frames_at_25_hz(c.pts_ns)) >= STEPS + REACH]
    taught = [clip for clip in spoken if measure or not clip.held_out]
    if not taught:
        raise UserError(f"--clips {clips}: nobody speaks in any of its clips; give videos with speech to prepare")
    if measure:
        for name, value in found(load_syncnet(out / "syncnet.safetensors"), taught, ALL).items():
            print(f"{name} {value:.3f}")
        return
    watching = [clip for clip in spoken if clip.held_out] or taught
    tests = [clip for name in {c.set_name for c in watching} for clip in [c for c in watching if c.set_name == name][:5]]

    def check(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, SyncNet)
        return found(module, tests, FEW)

    schedule = Schedule(steps=steps, rate=1e-3, warm_up=100, weight_decay=0.02)
    network = train("syncnet", SyncNet(), Draw(taught), contrast, schedule, out, check=check)
    with atomic_path(out / "syncnet.safetensors") as temporary:
        save_file({name: weights.half().contiguous() for name, weights in network.state_dict().items()}, temporary)


if __name__ == "__main__":
    command(main)
