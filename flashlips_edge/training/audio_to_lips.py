"""Stage 9 of the recipe: speech to lips by flow matching (FlashLips, section 3.4), speech encoder and velocity field together.

python -m flashlips_edge.training.audio_to_lips --clips work/clips --weights work/nano

Clips with sound teach it, and espeak-ng with the lips its phonemes ask for; every voice is disguised, so that the next one is no surprise.
At preset paper the speech encoder is wav2vec 2.0, as published and frozen: --wav2vec names its folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes
from flashlips_edge.models.audio_to_lips import AudioToLips
from flashlips_edge.models.lips import FACE_SIZE, LipsEncoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.speech_encoder import SpeechEncoder
from flashlips_edge.models.wav2vec import load_wav2vec
from flashlips_edge.speech.features import SAMPLES_PER_STEP, log_mel
from flashlips_edge.talking.mouth import choose_references
from flashlips_edge.training.another_face import another_face
from flashlips_edge.training.another_voice import another_room, another_throat, any_speed, faster
from flashlips_edge.training.checkpoint import load_weights, save_weights
from flashlips_edge.training.clips import load_clips
from flashlips_edge.training.command import StepsOption, command
from flashlips_edge.training.loop import Losses, Schedule, train
from flashlips_edge.training.rehearsal import Constants, Rehearsal, rehearse
from flashlips_edge.training.speech_tracks import Track, lips_of, load_tracks, resting
from flashlips_edge.training.synthetic_speech import fit_face, synthetic_tracks

NAME = "speech_task"  # of what learns
BATCH = 32
SET_WEIGHT = {"grid_s1": 0.35, "grid_multi": 0.35, "crema_d": 0.1, "synthetic": 0.2}
RESTING_SHARE = 0.2  # of the windows are spoken by a face that was seen at rest only, as a photo's or an idle loop's
DROP_SPEECH, DROP_PREVIOUS = 0.1, 0.5  # as FLOAT does
DIFFERENCE_WEIGHT = 1.0  # frame-difference loss, as FLOAT does
WATCHED = 12  # held-out tracks of each set that are spoken at every save


class SpeechTask(nn.Module):
    """What this stage trains; ``speech_encoder`` may be a given one, frozen, that hears waveforms."""

    def __init__(self, preset: dict[str, Any], speech_encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.hears_waveforms = speech_encoder is not None
        self.speech_encoder = speech_encoder or SpeechEncoder(**preset["speech_encoder"])
        self.audio_to_lips = AudioToLips(**preset["audio_to_lips"])


@dataclass(frozen=True)
class Draw:
    """Windows of tracks in disguise, a batch at a time."""

    tracks: list[Track]
    chances: np.ndarray  # [len(tracks)]
    window: int  # steps
    previous: int  # steps
    opening: np.ndarray  # [12]
    deviation: np.ndarray  # [12], of lips on one face
    hears_waveforms: bool

    def __call__(self, generator: np.random.Generator) -> tuple[Tensor, ...]:
        """audio [B, 4T, mels] or [B, 640T], lips [B, T, 12], emotion [B, E], reference_lips [B, 4, 12], previous_lips [B, P, 12]."""
        rows = [self.row(self.tracks[i], generator) for i in generator.choice(len(self.tracks), BATCH, p=self.chances)]
        return tuple(torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*rows))

    def row(self, track: Track, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        """One of the batch."""
        count = len(track.lips)
        speed = min(any_speed(generator), count / self.window)
        first = int(generator.integers(0, max(0, count - int(np.ceil(self.window * speed))) + 1))
        piece = track.waveform[first * SAMPLES_PER_STEP :][: round(self.window * speed * SAMPLES_PER_STEP)]
        waveform = another_room(faster(piece, self.window * SAMPLES_PER_STEP), generator)
        audio = waveform if self.hears_waveforms else another_throat(log_mel(waveform), generator)
        times = first + (np.arange(-self.previous, self.window) + 0.5) * speed - 0.5  # middles of the steps
        lips = np.stack([np.interp(times, np.arange(count), column) for column in track.lips.T], 1)
        if generator.random() < RESTING_SHARE:
            rests = resting(track.lips, self.opening)
            some = rests[generator.choice(len(rests), min(len(rests), int(generator.integers(1, 9))), replace=False)]
        else:
            some = track.lips[generator.choice(count, min(count, int(generator.integers(12, 60))), replace=False)]
            middle, turn = track.lips.mean(0), another_face(self.deviation, generator)
            lips, some = (middle + (vectors - middle) @ turn for vectors in (lips, some))
        references = some[choose_references(some, some @ self.opening)]
        return audio, lips[self.previous :], track.emotion, references, lips[: self.previous]


def loss(module: nn.Module, batch: tuple[Tensor, ...]) -> Losses:
    """|v(z_t, t, c) - (z - eps)|^2 with z_t = (1 - t) eps + t z, and the same for frame differences."""
    assert isinstance(module, SpeechTask)
    audio, lips, emotion, references, previous = batch
    flow = module.audio_to_lips
    b = len(lips)
    z, noise, time = flow.relative(lips, references), torch.randn_like(lips), torch.rand(b, device=lips.device)
    keep = (torch.rand(b, device=lips.device) > DROP_SPEECH).float()
    keep_previous = (torch.rand(b, device=lips.device) > DROP_PREVIOUS).float()
    before, condition = flow.context(module.speech_encoder(audio), emotion, references, previous, keep, keep_previous)
    mixed = (1 - time)[:, None, None] * noise + time[:, None, None] * z
    error = flow.field(mixed, time, before, condition).float() - (z - noise)
    return {"flow": error.square().mean(), "difference": DIFFERENCE_WEIGHT * error.diff(dim=1).square().mean()}


def chances_of(tracks: list[Track]) -> np.ndarray:
    """Probability float64 [len(tracks)] of drawing each: sets by SET_WEIGHT, tracks of a set alike."""
    counts = {name: sum(t.set_name == name for t in tracks) for name in {t.set_name for t in tracks}}
    weights = np.array([SET_WEIGHT.get(t.set_name, 0.2) / counts[t.set_name] for t in tracks])
    return weights / weights.sum()


def split(tracks: list[Track], left_out: list[str]) -> tuple[list[Track], list[Track]]:
    """Tracks to learn from and tracks to watch: those whose names begin with one of ``left_out``, or else one in ten."""
    watched = [t for t in tracks if (t.name.startswith(tuple(left_out)) if left_out else not sum(t.name.encode()) % 10)]
    if left_out and not watched:
        there = f"the first clip is {tracks[0].name}" if tracks else "there is no clip in which anybody speaks"
        raise UserError(f"--leave-out {left_out[0]}: no clip's name begins so; {there}")
    taught = [t for t in tracks if t not in watched]
    return taught or tracks, watched or tracks


def check_features(sizes: dict[str, Any], preset: str, wav2vec: Path | None) -> None:
    """Raises UserError where a preset that hears through wav2vec 2.0 has none, or another has one."""
    if ("wav2vec" in sizes) != (wav2vec is not None):
        needs = "needs the folder of wav2vec 2.0 base in" if wav2vec is None else f"has a speech encoder of its own; leave out {wav2vec} in"
        raise UserError(f"preset {preset} {needs} --wav2vec")


def keep_to(weights: Path) -> None:
    """Note which lips encoder in the folder ``weights`` is learned from. Raises UserError where an earlier run had another one: what its
    lips mean has changed since."""
    digest = hashlib.sha256((weights / "lips_encoder.safetensors").read_bytes()).hexdigest()
    state, note = weights / f"{NAME}.state.safetensors", weights / f"{NAME}.lips"
    if state.exists() and note.is_file() and note.read_text() != digest:
        raise UserError(f"{state}: learned from another lips encoder than the folder's; delete it to train audio to lips again")
    write_bytes(note, digest.encode())


def teach(
    task: SpeechTask,
    taught: list[Track],
    watched: list[Track],
    constants: Constants,
    flow: dict[str, Any],
    schedule: Schedule,
    folder: Path,
) -> SpeechTask:
    """The average of ``task`` trained on tracks, which are rehearsed at every save."""
    deviation = np.concatenate([track.lips - track.lips.mean(0) for track in taught]).std(0).clip(1e-6)
    draw = Draw(taught, chances_of(taught), flow["window"], flow["previous"], constants.lips_opening, deviation, task.hears_waveforms)
    batches = [draw(np.random.default_rng([6, i])) for i in range(4)]
    relative = torch.cat([task.audio_to_lips.relative(lips, references) for _, lips, _, references, _ in batches])
    task.audio_to_lips.mean.copy_(relative.mean((0, 1)))
    task.audio_to_lips.deviation.copy_(relative.std((0, 1)))

    def check(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, SpeechTask)
        networks = Rehearsal(module.speech_encoder, module.audio_to_lips, flow, module.hears_waveforms)
        result: dict[str, float] = {}
        for name in sorted({t.set_name for t in watched}):
            some = [t for t in watched if t.set_name == name][:WATCHED]
            result |= {f"{name}_{key}": value for key, value in rehearse(networks, some, constants).items()}
            result |= {f"{name}_resting_{key}": value for key, value in rehearse(networks, some, constants, at_rest=True).items()}
        return result

    average = train(NAME, task, draw, loss, schedule, folder, check=check)
    assert isinstance(average, SpeechTask)
    return average


def main(
    clips: Annotated[Path, typer.Option(help="folder that prepare wrote")] = Path("work/clips"),
    weights: Annotated[Path, typer.Option(help="folder with the lips encoder's weights")] = Path("work/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    steps: StepsOption = None,
    synthetic: Annotated[int, typer.Option(help="sentences of espeak-ng among the clips; 0 for none")] = 400,
    leave_out: Annotated[list[str] | None, typer.Option(help="start of the names of clips to watch and not learn from")] = None,
    wav2vec: Annotated[Path | None, typer.Option(help="folder of wav2vec 2.0 base, where the preset has it")] = None,
) -> None:
    """Train speech encoder and audio-to-lips."""
    sizes = load_preset(preset)
    check_features(sizes, preset, wav2vec)
    student = LipsEncoder(**sizes["lips"])
    load_weights(weights / "lips_encoder.safetensors", student)
    lips = lips_of(student.eval(), sizes["lips"].get("face_size", FACE_SIZE))
    constants = Constants.of(weights)
    opening = constants.lips_opening
    flow, recorded = sizes["audio_to_lips"], load_clips(clips)
    taught, watched = split(load_tracks(recorded, lips, opening, flow["emotions"]), leave_out or [])
    if synthetic:
        face = fit_face(recorded, lips)
        print(f"lips that the synthetic head's parameters explain: {face.explained:.2f}")
        taught += synthetic_tracks(synthetic, face, opening, flow["emotions"])
    if not taught:
        raise UserError(f"--clips {clips}: nobody speaks in any of its clips; prepare videos with speech, or install espeak-ng")
    training = sizes["training"]
    schedule = Schedule(steps=steps or training["steps"]["audio_to_lips"], weight_decay=0.01, **training["audio_to_lips"])
    task = SpeechTask(sizes, load_wav2vec(wav2vec) if wav2vec else None)
    keep_to(weights)
    task = teach(task, taught, watched, constants, flow, schedule, weights)
    if wav2vec is None:
        save_weights(weights / "speech_encoder.safetensors", task.speech_encoder)
    save_weights(weights / "audio_to_lips.safetensors", task.audio_to_lips)


if __name__ == "__main__":
    command(main)
