"""The finished networks of a recipe without its checkpoints, in half precision: what is copied from the machine that trained them.

    python -m flashlips_edge.training.ship --weights work/edge/edge --out shipped/edge

A stage that starts from them reads them as it reads its own: training.personal; make bundle PRESET=edge WEIGHTS=shipped/edge.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import save_file
from torch import Tensor

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path
from flashlips_edge.training.checkpoint import read_tensors
from flashlips_edge.training.command import command

NETWORKS = ("autoencoder", "editor", "editor_transformer", "lips_encoder", "speech_encoder", "audio_to_lips")
CONSTANTS = "lips.json"  # what the lips encoder's numbers mean


def main(
    weights: Annotated[Path, typer.Option(help="folder of trained weights")] = Path("work/nano"),
    out: Annotated[Path, typer.Option(help="folder for the networks that are there")] = Path("work/shipped"),
) -> None:
    """Copy the finished networks in half precision."""
    if out.resolve() == weights.resolve():
        raise UserError(f"--out {out}: this is the folder of --weights, whose networks would lose half of their precision; name another")
    there = [path for name in NETWORKS if (path := weights / f"{name}.safetensors").is_file()]
    if not there:
        raise UserError(f"--weights {weights}: none of {', '.join(NETWORKS)} is there; run python -m flashlips_edge.training first")
    halves = {path.name: _halves(path) for path in there}  # all of them first: one that is damaged leaves nothing half-copied
    for name, tensors in halves.items():
        with atomic_path(out / name) as temporary:
            save_file(tensors, temporary)
    if (weights / CONSTANTS).is_file():
        with atomic_path(out / CONSTANTS) as temporary:
            shutil.copyfile(weights / CONSTANTS, temporary)
    size = sum((out / name).stat().st_size for name in halves)
    print(f"{out}: {', '.join(path.stem for path in there)}; {size / 1e6:.1f} MB")


def _halves(path: Path) -> dict[str, Tensor]:
    return {name: value.half() if value.is_floating_point() else value for name, value in read_tensors(path).items()}


if __name__ == "__main__":
    command(main)
