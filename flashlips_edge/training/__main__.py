"""The whole recipe, stage by stage: data, networks, bundle. A stage that is done is not done again; a killed one goes on.

    python -m flashlips_edge.training
    python -m flashlips_edge.training --preset paper --sdxl sdxl-vae --vgg19 vgg19.safetensors --vggface2 resnet50.safetensors

On several GPUs each network's stage runs by itself under torchrun, as training/loop.py shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional

import typer

from flashlips_edge.errors import UserError
from flashlips_edge.training import (
    audio_to_lips,
    autoencoder,
    distil_autoencoder,
    editor,
    export,
    latents,
    lips_encoder,
    lips_teacher,
    prepare,
    refinement,
    synthetic_clips,
)
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import Backbone, BackboneOption
from flashlips_edge.training.feature_files import Vgg19File, VggFace2File
from flashlips_edge.training.latents import SdxlFolder

DATA = Path(os.environ.get("FLASHLIPS_DATA", "../shared/data")) / "train"


def main(
    data: Annotated[Path, typer.Option(help="folder of training videos; default $FLASHLIPS_DATA/train, or ../shared/data/train")] = DATA,
    work: Annotated[Path, typer.Option(help="folder for one preset's clips, latents, checkpoints and weights")] = Path("work"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    out: Annotated[Path, typer.Option(help="folder of the bundle")] = Path("work/bundle"),
    vgg19: Vgg19File = None,
    vggface2: VggFace2File = None,
    sdxl: SdxlFolder = None,
    wav2vec: Annotated[Optional[Path], typer.Option(help="folder of wav2vec 2.0 base, where the preset has it")] = None,  # noqa: UP045
    backbone: BackboneOption = Backbone.UNET,
) -> None:
    """Train every network of a preset and export the bundle."""
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder; name one with training videos")
    clips, cache, weights = work / "clips", work / "latents", work / preset
    own = weights / "autoencoder.safetensors"

    def train_autoencoder() -> None:
        if sdxl is not None:
            distil_autoencoder.main(sdxl, clips, weights, preset)
        else:
            autoencoder.main(clips, weights, preset)

    stages: dict[str, Callable[[], None]] = {
        "prepare": lambda: prepare.main([data], clips, preset),
        "synthetic clips": lambda: synthetic_clips.main(out=clips, preset=preset),
        "autoencoder": train_autoencoder,
        "latents": lambda: latents.main(clips, own, cache, preset, sdxl),
        "lips teacher": lambda: lips_teacher.main(cache, weights, preset),
        "editor": lambda: editor.main(cache, weights, preset, vgg19=vgg19, vggface2=vggface2, sdxl=sdxl, backbone=backbone),
        "refinement": lambda: refinement.main(cache, weights, preset, vgg19=vgg19, vggface2=vggface2, sdxl=sdxl, backbone=backbone),
        "lips encoder": lambda: lips_encoder.main(cache, weights, preset, backbone=backbone),
        "audio to lips": lambda: audio_to_lips.main(clips, weights, preset, wav2vec=wav2vec),
        "export": lambda: export.main(weights, out, preset, backbone=backbone, sdxl=sdxl, wav2vec=wav2vec),
    }
    for name, stage in stages.items():
        start = time.monotonic()
        stage()
        print(f"{name}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    command(main)
