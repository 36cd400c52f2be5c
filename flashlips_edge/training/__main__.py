"""The whole recipe, stage by stage: data, networks, bundle. A stage that is done is not done again; a killed one goes on.

    python -m flashlips_edge.training
    python -m flashlips_edge.training --share 0.001 --work work/trial --out work/trial/bundle     # does all of it run on my videos?
    python -m flashlips_edge.training --preset edge --start weights/nano --work work/edge         # from nano's networks
    python -m flashlips_edge.training --preset paper --sdxl sdxl-vae --wav2vec wav2vec2-base --vgg19 vgg19.safetensors

On several GPUs the networks' stages run under torchrun, as training/loop.py shows; clips and latents are made by one process.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer

from flashlips_edge.errors import UserError
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.sdxl import load_sdxl
from flashlips_edge.models.wav2vec import load_wav2vec
from flashlips_edge.training import (
    audio_to_lips,
    autoencoder,
    distil_autoencoder,
    editor,
    export,
    grow,
    joint,
    latents,
    lips_encoder,
    lips_teacher,
    pack,
    refinement,
    sharpening,
    synthetic_clips,
)
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import Backbone, BackboneOption
from flashlips_edge.training.expression import ExpressionFile, load_expression
from flashlips_edge.training.feature_files import Vgg19File, VggFace2File, check_terms, feature_networks
from flashlips_edge.training.latents import SdxlFolder
from flashlips_edge.training.order import check_backbone
from flashlips_edge.training.pace import Pace, at

DATA = Path(os.environ.get("FLASHLIPS_DATA", "../shared/data")) / "train"
LEAST_PEOPLE = 20  # synthetic ones: some must be held out
SYNTHETIC_PEOPLE, SENTENCES = 160, 400
SEE_SDXL = {"autoencoder", "latents", "editor", "refinement", "sharpening", "joint", "export"}  # stages
HAVE_TEACHER = {"lips-teacher", "editor", "refinement", "sharpening", "lips-encoder"}
HEAR_WAV2VEC = {"audio-to-lips", "export"}
GROWN = ("clips", "synthetic-clips", "latents", "joint", "export")  # the stages that are left with --start


def prepare_data(data: Path, clips: Path, preset: str, workers: int) -> None:
    """Clips of a folder of videos, or of a file that training.pack wrote."""
    if data.is_file():
        pack.unpack(data, clips, load_preset(preset)["crop_size"])
        return
    from flashlips_edge.training import prepare  # a machine that only unpacks needs no PyAV

    prepare.main([data], clips, preset, workers=workers)


def sentences(share: float) -> int:
    """How many sentences of espeak-ng audio to lips hears besides the clips; none, and a word about it, where it is not installed."""
    if shutil.which("espeak-ng") is None:
        print("espeak-ng is not installed: audio to lips learns from the clips alone")
        return 0
    return max(1, round(share * SENTENCES))


def main(
    data: Annotated[Path, typer.Option(help="folder of training videos, or a file of training.pack; default $FLASHLIPS_DATA/train")] = DATA,
    work: Annotated[Path, typer.Option(help="folder for one preset's clips, latents, checkpoints and weights")] = Path("work"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    out: Annotated[Path, typer.Option(help="folder of the bundle")] = Path("work/bundle"),
    vgg19: Vgg19File = None,
    vggface2: VggFace2File = None,
    expression: ExpressionFile = None,
    sdxl: SdxlFolder = None,
    wav2vec: Annotated[Optional[Path], typer.Option(help="folder of wav2vec 2.0 base, where the preset has it")] = None,  # noqa: UP045
    backbone: BackboneOption = Backbone.UNET,
    start: Annotated[Optional[Path], typer.Option(help="folder of a trained preset nano: its editor is grown, the rest is taken")] = None,  # noqa: UP045
    stages: Annotated[str, typer.Option(help="which, with commas between; default: all")] = "",
    share: Annotated[float, typer.Option(help="of the steps and of the synthetic people", min=0, max=1)] = 1.0,
    minutes: Annotated[Optional[float], typer.Option(help="of training for each network, in place of a number of steps", min=0.01)] = None,  # noqa: UP045
    rate: joint.RateOption = None,
    hold_lips: joint.HoldLipsOption = False,
    batch: Annotated[Optional[int], typer.Option(help="samples of a step of the editor; default: the preset's, for a CPU", min=1)] = None,  # noqa: UP045
) -> None:
    """Train every network of a preset and export the bundle."""
    clips, cache, weights = work / "clips", work / "latents", work / preset
    own = weights / "autoencoder.safetensors"
    workers = len(os.sched_getaffinity(0))
    people = max(LEAST_PEOPLE, round(share * SYNTHETIC_PEOPLE))

    def edits(stage: Callable[..., None], **more: Any) -> Callable[[], None]:
        return lambda: stage(cache, weights, preset, vgg19=vgg19, vggface2=vggface2, sdxl=sdxl, backbone=backbone, **more)

    def train_autoencoder() -> None:
        if sdxl is not None:
            distil_autoencoder.main(sdxl, clips, weights, preset)
        else:
            autoencoder.main(clips, weights, preset)

    every: dict[str, Callable[[], None]] = {
        "clips": lambda: prepare_data(data, clips, preset, workers),
        "synthetic-clips": lambda: synthetic_clips.main(people, clips, preset, workers),
        "autoencoder": train_autoencoder,
        "latents": lambda: latents.main(clips, own, cache, preset, sdxl),
        "lips-teacher": lambda: lips_teacher.main(cache, weights, preset, expression=expression),
        "editor": edits(editor.main, expression=expression),
        "refinement": edits(refinement.main, expression=expression),
        "sharpening": edits(sharpening.main, expression=expression),
        "lips-encoder": lambda: lips_encoder.main(cache, weights, preset, backbone=backbone, expression=expression),
        "joint": edits(joint.main, rate=rate, hold_lips=hold_lips),
        "audio-to-lips": lambda: audio_to_lips.main(clips, weights, preset, synthetic=sentences(share), wav2vec=wav2vec),
        "export": lambda: export.main(weights, out, preset, backbone=backbone, sdxl=sdxl, wav2vec=wav2vec),
    }
    if start is not None:
        every = {"grow": lambda: grow.main(start, "nano", weights, preset, backbone), **{name: every[name] for name in GROWN}}
    for name in ("sharpening", "joint"):
        if f"{name}_rate" not in load_preset(preset)["training"]:
            every.pop(name, None)
    chosen = [name.strip() for name in stages.split(",")] if stages else list(every)
    if unknown := [name for name in chosen if name not in every]:
        raise UserError(f"--stages {unknown[0]!r} is not one of {', '.join(every)}")
    if "clips" in chosen and not data.exists():
        raise UserError(f"--data {data}: no such folder or file; name one with training videos, or a file of training.pack")
    if {"editor", "lips-encoder"} & set(chosen):
        check_backbone(weights, backbone)
    if vgg19 is not None or vggface2 is not None:
        check_terms(load_preset(preset)["loss"], vgg19, vggface2)
        feature_networks(vgg19, vggface2)  # a wrong file is said now, not after the hours before it is needed
    if HAVE_TEACHER & set(chosen):
        load_expression(expression, weights)
    if sdxl is not None and SEE_SDXL & set(chosen):
        load_sdxl(sdxl)
    if HEAR_WAV2VEC & set(chosen):
        audio_to_lips.check_features(load_preset(preset), preset, wav2vec)
        if wav2vec is not None:
            load_wav2vec(wav2vec)
    if "export" in chosen:
        export.check_out(out)
    for name in (name for name in every if name in chosen):
        began = time.monotonic()
        torch.manual_seed(0)  # first weights do not depend on what was done before: a killed run ends with the same ones
        with at(Pace(share, minutes, batch)):
            every[name]()
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    command(main)
