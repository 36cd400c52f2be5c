"""A personal avatar: the shipped editor fine-tuned on one person's minute of video, and the folder that run.py speaks with.

    python -m flashlips_edge.training.personal me.mp4 --consent "Ada, for our lobby, 2026" --out avatars/ada
    python -m flashlips_edge.run --avatar avatars/ada --audio speech.wav

Only the editor learns; the lips encoder, frozen, says what lips the frames have, so that lips vectors mean what they meant. One
input in four is of the synthetic head, whose mouths open further than a minute of speech shows.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn
from tqdm import tqdm

from flashlips_edge.errors import UserError
from flashlips_edge.files import make_folder
from flashlips_edge.folders import beside
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.models.editor import EditorUNet
from flashlips_edge.models.lips import FACE_SIZE, LipsEncoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.talking.avatar_folder import BUNDLE, write_record
from flashlips_edge.training import boxes, export, synthetic_clips
from flashlips_edge.training.checkpoint import load_constants, load_weights, save_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.critic import Critic, sharp_terms
from flashlips_edge.training.editor import LIPS_NOISE, load_decoder, psnr
from flashlips_edge.training.feature_files import feature_networks
from flashlips_edge.training.latents import load_autoencoder
from flashlips_edge.training.latents import write as write_latents
from flashlips_edge.training.loop import Losses, Schedule, on, train
from flashlips_edge.training.losses import LossWeights, ReconstructionLoss
from flashlips_edge.training.pairs import Batch, Person, draw
from flashlips_edge.training.prepare import pieces

SHIPPED = Path("weights")  # a folder for each preset
BATCH = 12
MASKED_SHARE = 0.3
SYNTHETIC_SHARE = 0.25
SYNTHETIC_SEEDS = range(1000, 1040)
LAST_SHARE = 0.1  # of each stretch of video watches and is not learned from
LEAST_WATCHED = 12  # frames of a stretch: among fewer, a target's references are its neighbours
MIN_FRAMES = 150
CHECKED = 64  # frames


class PersonalTask(nn.Module):
    """What learns: the editor, and a critic of this person's mouths."""

    def __init__(self, editor: nn.Module) -> None:
        super().__init__()
        self.editor, self.critic = editor, Critic()


class PersonalLoss(nn.Module):
    """The losses of the last stage (training/sharpening.py), with the frozen lips encoder's view of the frame that was wanted."""

    def __init__(self, preset: dict[str, Any], weights: Path) -> None:
        super().__init__()
        decoder = load_decoder(preset, weights)
        self.reconstruction = ReconstructionLoss(LossWeights(**preset["loss"]), decoder, *feature_networks(None, None))
        self.lips = LipsEncoder(**preset["lips"])
        load_weights(weights / "lips_encoder.safetensors", self.lips)
        self.lips.eval().requires_grad_(False)

    def forward(self, task: PersonalTask, batch: Batch) -> Losses:
        lips = self.lips(batch.face).float()
        edited = task.editor(batch.latent, batch.references, lips + LIPS_NOISE * torch.randn_like(lips))
        return sharp_terms(self.reconstruction, task.critic, edited, batch)

    @torch.no_grad()
    def mouth_db(self, task: PersonalTask, batch: Batch) -> float:
        """Mean PSNR over the mouth box of the edited frames."""
        edited = task.editor(batch.latent, batch.references, self.lips(batch.face).float())
        return psnr(self.reconstruction.decoder(edited), batch.lower)


def faces(path: Path, size: int) -> list[np.ndarray]:
    """Crops uint8 [T, size, size, 3] of every stretch of the video that shows one face for a second or more; at least one.

    Raises:
        UserError: there is none.
    """
    with VideoFile(path, "VIDEO") as video:
        found = [piece.crops for piece in pieces(video, size)]
    if not found:
        raise UserError(f"VIDEO {path}: it shows no face for as long as a second; leave it out")
    return found


def people(videos: list[Path], preset: dict[str, Any], weights: Path, out: Path) -> tuple[list[Person], list[Person], list[Person]]:
    """Cached latents: of the person to learn from, of the person's last tenths to watch, and of strangers, the synthetic head.

    Raises:
        UserError: no face, or too little of one.
    """
    model = load_autoencoder(preset, weights / "autoencoder.safetensors", None)
    size, lower, face_size = preset["crop_size"], boxes.lower_row(preset), preset["lips"].get("face_size", FACE_SIZE)

    def cached(name: str, crops: np.ndarray) -> Person:
        write_latents(out / name, model, crops, lower, face_size)
        return Person(out / name)

    taught, watching = [], []
    for i, crops in enumerate(crops for video in videos for crops in faces(video, size)):
        last = round(LAST_SHARE * len(crops))
        if last < LEAST_WATCHED:
            last = LEAST_WATCHED if i == 0 else 0  # somebody watches
        taught.append(cached(f"taught.{i}", crops[: len(crops) - last]))
        if last:
            watching.append(cached(f"watching.{i}", crops[len(crops) - last :]))
    if (frames := sum(map(len, taught))) < MIN_FRAMES:
        raise UserError(
            f"VIDEO {videos[0]}: {frames} frames with a face are left to learn from, as the last ones watch; "
            f"at least {MIN_FRAMES} are needed, better a minute of speech"
        )
    strangers = [
        cached(f"synthetic.{seed}", np.asarray(synthetic_clips.make(seed, size)["crops.npy"]))
        for seed in tqdm(SYNTHETIC_SEEDS, "synthetic head", unit="person")
    ]
    return taught, watching, strangers


def fine_tune(videos: list[Path], preset: dict[str, Any], weights: Path, work: Path, steps: int) -> dict[str, float]:
    """Fine-tune the editor of the folder ``weights`` on one person's videos; ``work/weights`` is then a whole set of weights.

    Gives the figures before and after, on frames that were not learned from. Raises UserError as ``people`` does.
    """
    taught, watching, strangers = people(videos, preset, weights, work / "latents")
    tuned = work / "weights"
    tuned.mkdir()
    for path in (*weights.glob("*.safetensors"), weights / "lips.json"):
        shutil.copyfile(path, tuned / path.name)
    editor = EditorUNet(**preset["editor"])
    load_weights(weights / "editor.safetensors", editor)
    torch.manual_seed(0)  # of the new critic
    task, loss = PersonalTask(editor), PersonalLoss(preset, weights)
    own, other = (1 - SYNTHETIC_SHARE) / len(taught), SYNTHETIC_SHARE / len(strangers)
    chances = np.array([own] * len(taught) + [other] * len(strangers))
    even = np.full(len(watching), 1 / len(watching))
    references = preset["editor"]["references"]
    hidden = draw(watching, even, np.random.default_rng(1), CHECKED, 1.0, references)

    def check(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, PersonalTask)
        return {"mouth_hidden_db": loss.mouth_db(module, on(module, hidden))}

    before = check(task.eval())["mouth_hidden_db"]
    average = train(
        "personal",
        task,
        partial(draw, taught + strangers, chances, count=BATCH, masked_share=MASKED_SHARE, references=references),
        loss,
        Schedule(steps=steps, rate=5e-4, warm_up=50, average_decay=0.995),
        work / "training",
        check=check,
    )
    assert isinstance(average, PersonalTask)
    save_weights(tuned / "editor.safetensors", average.editor)
    after = check(average)["mouth_hidden_db"]
    return {
        "frames": sum(map(len, taught)),
        "steps": steps,
        "mouth_hidden_db_before": round(before, 2),
        "mouth_hidden_db": round(after, 2),
    }


def make(videos: list[Path], consent: str, out: Path, weights: Path, steps: int, preset_name: str) -> dict[str, float]:
    """Write the avatar folder ``out`` in a folder beside it and put it in its place when it is whole; gives its figures."""
    make_folder(out.parent)
    with beside(out) as work:
        folder = work / "avatar"
        folder.mkdir()
        figures = fine_tune(videos, load_preset(preset_name), weights, work, steps)
        export.export(preset_name, work / "weights", folder / BUNDLE, export.card_of(weights))
        video = f"video{videos[0].suffix.lower()}"
        shutil.copyfile(videos[0], folder / video)
        write_record(folder, video, consent, figures)
        folder.rename(out)
    return figures


def main(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="one to three minutes of one person; the first is looped")],
    consent: Annotated[str, typer.Option(help="who agreed to this avatar, and for what; kept in the folder")],
    out: Annotated[Path, typer.Option(help="the avatar's folder")],
    weights: Annotated[Path | None, typer.Option(help="weights to start from; default: those that come with the preset")] = None,
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps")] = 700,
    preset: Annotated[str, typer.Option(help="nano or edge")] = "nano",
) -> None:
    """Fine-tune the networks on one person and write an avatar folder."""
    if not any(map(str.isalnum, consent)):
        raise UserError("--consent is empty: name who agreed to this avatar, and for what")
    if out.exists():
        raise UserError(f"--out {out}: exists already; name a new folder, or delete it first")
    if missing := [video for video in videos if not video.is_file()]:
        raise UserError(f"VIDEO {missing[0]}: no such file")
    sizes = load_preset(preset)
    if "joint_rate" not in sizes["training"]:
        raise UserError(f"--preset {preset}: no weights come with it and it takes a GPU's night; take nano or edge")
    weights = weights or SHIPPED / preset
    if not (weights / "editor.safetensors").is_file():
        raise UserError(f"--weights {weights}: no editor.safetensors there; the shipped set is {SHIPPED / preset}")
    export.load_graphs(sizes, weights)  # before the long work: what is missing there, or of another preset
    load_constants(weights)
    figures = make(videos, consent, out, weights, steps, preset)
    print(f"{out}: mouth hidden {figures['mouth_hidden_db_before']:.1f} dB before, {figures['mouth_hidden_db']:.1f} dB after {steps} steps")
    if figures["mouth_hidden_db"] <= figures["mouth_hidden_db_before"]:
        print(f"frames of it that were not learned from got no better: show the video itself, or make {out} anew from more of it")


if __name__ == "__main__":
    command(main)
