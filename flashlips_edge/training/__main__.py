"""The whole recipe, stage by stage: data, networks, bundle. A stage that is done is not done again; a killed one goes on.

python -m flashlips_edge.training
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flashlips_edge.errors import UserError
from flashlips_edge.training import (
    audio_to_lips,
    autoencoder,
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

DATA = Path(os.environ.get("FLASHLIPS_DATA", "../shared/data")) / "train"


def main(
    data: Annotated[Path, typer.Option(help="folder of training videos; default $FLASHLIPS_DATA/train, or ../shared/data/train")] = DATA,
    work: Annotated[Path, typer.Option(help="folder for clips, latents, checkpoints and weights")] = Path("work"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    out: Annotated[Path, typer.Option(help="folder of the bundle")] = Path("work/bundle"),
) -> None:
    """Train every network of a preset and export the bundle."""
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder; name one with training videos")
    clips, cache, weights = work / "clips", work / "latents", work / preset
    stages: dict[str, Callable[[], None]] = {
        "prepare": lambda: prepare.main([data], clips),
        "synthetic clips": lambda: synthetic_clips.main(out=clips),
        "autoencoder": lambda: autoencoder.main(clips, weights, preset),
        "latents": lambda: latents.main(clips, weights / "autoencoder.safetensors", cache, preset),
        "lips teacher": lambda: lips_teacher.main(cache, weights, preset),
        "editor": lambda: editor.main(cache, weights, preset),
        "refinement": lambda: refinement.main(cache, weights, preset),
        "lips encoder": lambda: lips_encoder.main(cache, weights, preset),
        "audio to lips": lambda: audio_to_lips.main(clips, weights, preset),
        "export": lambda: export.main(weights, out, preset),
    }
    for name, stage in stages.items():
        start = time.monotonic()
        stage()
        print(f"{name}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    command(main)
