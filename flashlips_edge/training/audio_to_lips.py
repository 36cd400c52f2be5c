"""Stage 7 of the recipe: speech to lips by flow matching (FlashLips, section 3.4), speech encoder and velocity field together.

python -m flashlips_edge.training.audio_to_lips --clips work/clips --weights work/nano
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from torch import Tensor, nn
from tqdm import tqdm

from flashlips_edge.identity import choose_references
from flashlips_edge.models.audio_to_lips import AudioToLips
from flashlips_edge.models.editor import LIPS
from flashlips_edge.models.lips import FACE_SIZE, LipsEncoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.speech_encoder import SpeechEncoder
from flashlips_edge.speech.features import MELS_PER_STEP, STEP_RATE_HZ, log_mel
from flashlips_edge.training.checkpoint import load_weights, save_weights
from flashlips_edge.training.clips import Clip, load_clips
from flashlips_edge.training.command import command
from flashlips_edge.training.loop import Losses, Schedule, train

BATCH = 32
SPEECH_WEIGHT = {"grid_s1": 0.45, "grid_multi": 0.4, "crema_d": 0.15}
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")  # of CREMA-D's file names; all zeros where nobody said
DROP_SPEECH, DROP_PREVIOUS = 0.1, 0.5  # as FLOAT does
DIFFERENCE_WEIGHT = 1.0  # frame-difference loss, as FLOAT does
MARGIN_STEPS = 15  # of silence and still lips around a clip


@dataclass(frozen=True)
class Track:
    """One clip at 25 steps a second: mel float32 [4T, mels], lips float32 [T, 12], emotion float32 [E]; frames' lips for references."""

    name: str
    mel: np.ndarray
    lips: np.ndarray
    emotion: np.ndarray
    weight: float


@torch.no_grad()
def lips_of(student: nn.Module, clip: Clip) -> np.ndarray:
    """Lips vectors float32 [frames, 12] of a clip."""
    faces = np.stack([cv2.resize(c, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_AREA) for c in clip.crops])
    return student(torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255).float().numpy()


def track_of(student: nn.Module, clip: Clip, emotions: int, weight: float) -> Track:
    """Lips and log-mel of a clip on one clock, with a margin of silence."""
    lips = lips_of(student, clip)
    mel = log_mel(clip.audio)
    steps = min(len(mel) // MELS_PER_STEP, int(clip.pts_ns[-1] * STEP_RATE_HZ // 1_000_000_000) + 1)
    times = np.arange(steps) * (1_000_000_000 / STEP_RATE_HZ)
    lips = np.stack([np.interp(times, clip.pts_ns, lips[:, i]) for i in range(LIPS)], 1).astype(np.float32)
    quiet = np.full((MELS_PER_STEP * MARGIN_STEPS, mel.shape[1]), mel.min(), np.float32)
    mel = np.concatenate([quiet, mel[: MELS_PER_STEP * steps], quiet])
    lips = np.pad(lips, ((MARGIN_STEPS, MARGIN_STEPS), (0, 0)), mode="edge")
    emotion = np.zeros(emotions, np.float32)
    for i, name in enumerate(EMOTIONS):
        emotion[i] = f"_{name}_" in clip.folder.name
    return Track(clip.folder.name, mel, lips, emotion, weight)


def load_tracks(student: nn.Module, clips: list[Clip], emotions: int) -> list[Track]:
    spoken = [c for c in clips if (c.folder / "audio.npy").exists()]
    counts = {name: sum(c.set_name == name for c in spoken) for name in {c.set_name for c in spoken}}
    return [
        track_of(student, c, emotions, SPEECH_WEIGHT.get(c.set_name, 0.2) / counts[c.set_name])
        for c in tqdm(spoken, desc="lips", unit="clip")
    ]


def another_voice(mel: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The same words from another throat and room: shifted bands, tilt, level, noise, a gap in the bands."""
    bands = np.arange(mel.shape[1])
    shift, stretch = generator.normal(0, 1.5), generator.normal(1, 0.05)
    source = np.clip(bands * stretch + shift, 0, mel.shape[1] - 1)
    low = np.floor(source).astype(int)
    high = np.minimum(low + 1, mel.shape[1] - 1)
    share = (source - low).astype(np.float32)
    result = mel[:, low] * (1 - share) + mel[:, high] * share
    result = (
        result
        + np.float32(generator.normal(0, 0.12))
        + np.linspace(-1, 1, len(bands), dtype=np.float32) * np.float32(generator.normal(0, 0.06))
    )
    if generator.random() < 0.6:
        floor = generator.uniform(-1.0, -0.1) + generator.normal(0, 0.06, result.shape)
        result = np.logaddexp(9.2 * result, 9.2 * floor) / 9.2  # powers add: 1 unit is 4 bel, 9.2 nepers
    if generator.random() < 0.3:
        start = generator.integers(0, len(bands) - 10)
        result[:, start : start + generator.integers(3, 10)] = result.mean()
    return np.maximum(result, -1.0).astype(np.float32)


class SpeechTask(nn.Module):
    """What this stage trains."""

    def __init__(self, preset: dict[str, Any]) -> None:
        super().__init__()
        self.speech_encoder = SpeechEncoder(**preset["speech_encoder"])
        self.audio_to_lips = AudioToLips(**preset["audio_to_lips"])


@dataclass(frozen=True)
class Draw:
    """How windows are drawn."""

    window: int
    previous: int
    opening: np.ndarray  # [12]

    def __call__(
        self, tracks: list[Track], weights: np.ndarray, generator: np.random.Generator, count: int, augment: bool = True
    ) -> tuple[Tensor, ...]:
        """mel [B, 4T, mels], lips [B, T, 12], emotion [B, E], reference_lips [B, 4, 12], previous_lips [B, P, 12]."""
        columns: list[list[np.ndarray]] = [[], [], [], [], []]
        for index in generator.choice(len(tracks), count, p=weights):
            track = tracks[index]
            start = int(generator.integers(0, len(track.lips) - self.window + 1))
            before = np.clip(np.arange(start - self.previous, start), 0, None)
            some = track.lips[generator.choice(len(track.lips), min(len(track.lips), int(generator.integers(12, 60))), replace=False)]
            mel = track.mel[MELS_PER_STEP * start : MELS_PER_STEP * (start + self.window)]
            row = (
                another_voice(mel, generator) if augment else mel,
                track.lips[start : start + self.window],
                track.emotion,
                some[choose_references(some, some @ self.opening)],
                track.lips[before],
            )
            for column, value in zip(columns, row):
                column.append(value)
        return tuple(torch.from_numpy(np.stack(column).astype(np.float32)) for column in columns)


def loss(task: SpeechTask, batch: tuple[Tensor, ...]) -> Losses:
    """|v(z_t, t, c) - (z - eps)|^2 with z_t = (1 - t) eps + t z, and the same for frame differences."""
    mel, lips, emotion, references, previous = batch
    flow = task.audio_to_lips
    b = len(mel)
    z, noise, time = flow.relative(lips, references), torch.randn_like(lips), torch.rand(b)
    keep = (torch.rand(b) > DROP_SPEECH).float()
    keep_previous = (torch.rand(b) > DROP_PREVIOUS).float()
    before, condition = flow.context(task.speech_encoder(mel), emotion, references, previous, keep, keep_previous)
    mixed = (1 - time)[:, None, None] * noise + time[:, None, None] * z
    error = flow.field(mixed, time, before, condition).float() - (z - noise)
    return {"flow": error.square().mean(), "difference": DIFFERENCE_WEIGHT * error.diff(dim=1).square().mean()}


def main(
    clips: Annotated[Path, typer.Option(help="folder that prepare wrote")] = Path("work/clips"),
    weights: Annotated[Path, typer.Option(help="folder with the lips encoder's weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: Annotated[int, typer.Option(help="optimiser steps")] = 6000,
) -> None:
    """Train speech encoder and audio-to-lips."""
    sizes = load_preset(preset)
    student = LipsEncoder(**sizes["lips"])
    load_weights(weights / "lips_encoder.safetensors", student)
    student.eval()
    opening = np.float32(json.loads((weights / "lips.json").read_text())["opening"])
    flow = sizes["audio_to_lips"]
    tracks = load_tracks(student, load_clips(clips), flow["emotions"])
    taught = [t for t in tracks if sum(t.name.encode()) % 10]
    held_out = [t for t in tracks if not sum(t.name.encode()) % 10] or tracks
    chances = np.array([t.weight for t in taught])
    chances /= chances.sum()
    draw = Draw(flow["window"], flow["previous"], opening)
    tests = {}
    for name in sorted({t.name.split(".")[0] for t in held_out}):
        chosen = [t for t in held_out if t.name.startswith(name)]
        tests[name] = draw(chosen, np.full(len(chosen), 1 / len(chosen)), np.random.default_rng(5), 32, augment=False)

    task = SpeechTask(sizes)
    batch = draw(taught, chances, np.random.default_rng(6), 512, augment=False)
    relative = task.audio_to_lips.relative(batch[1], batch[3])  # mean 0, deviation 1 as yet
    task.audio_to_lips.mean.copy_(relative.mean((0, 1)))
    task.audio_to_lips.deviation.copy_(relative.std((0, 1)))

    def check(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, SpeechTask)
        result = {}
        for name, (mel, lips, emotion, references, previous) in tests.items():
            given = module.audio_to_lips(torch.zeros_like(lips), module.speech_encoder(mel), emotion, references, previous).float()
            a, b = (x.numpy() @ opening for x in (given, lips))
            result[f"{name}_opening_r"] = float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b)]))
            result[f"{name}_opening_gain"] = float(a.std() / b.std())
        return result

    average = train(
        "speech_task",
        task,
        lambda module, generator: loss(module, draw(taught, chances, generator, BATCH)),  # type: ignore[arg-type]
        Schedule(steps=steps, rate=1e-3, warm_up=200, weight_decay=0.01),
        weights,
        check=check,
    )
    assert isinstance(average, SpeechTask)
    save_weights(weights / "speech_encoder.safetensors", average.speech_encoder)
    save_weights(weights / "audio_to_lips.safetensors", average.audio_to_lips)


if __name__ == "__main__":
    command(main)
