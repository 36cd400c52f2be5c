"""Stage 2 of the recipe: every clip, and other people made from it, as cached latents.

python -m flashlips_edge.training.latents --clips work/clips --autoencoder work/nano/autoencoder.safetensors --out work/latents
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.lips import FACE_SIZE
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.augment import another_person
from flashlips_edge.training.checkpoint import load_weights
from flashlips_edge.training.clips import Clip, load_clips
from flashlips_edge.training.command import command

MASK = (84, 160, 30, 130)  # top, bottom, left, right of the masked lower face in a 160 px crop
LOWER = 56  # first pixel row that the editor's pixel loss sees
VARIANTS = {"grid_s1": 2, "grid_multi": 40, "crema_d": 32, "synthetic": 1, "demo": 1}  # people made from each clip, the clip itself counted
STRIDE = {"grid_s1": 3, "grid_multi": 2, "crema_d": 2, "synthetic": 1, "demo": 1}  # every n-th frame
MAX_CLIPS = {"grid_s1": 160}


def masked(crops: np.ndarray) -> np.ndarray:
    """A copy of crops uint8 [T, S, S, 3] with the lower face grey."""
    top, bottom, left, right = MASK
    result = crops.copy()
    result[:, top:bottom, left:right] = 128
    return result


def pose_of(crops: np.ndarray) -> np.ndarray:
    """What tells two head poses apart: the small grey upper face, float32 [T, 200]."""
    small = [cv2.resize(cv2.cvtColor(c[24:84, 30:130], cv2.COLOR_RGB2GRAY), (20, 10), interpolation=cv2.INTER_AREA) for c in crops]
    return np.stack(small).reshape(len(crops), -1).astype(np.float32)


@torch.no_grad()
def encode(model: Autoencoder, crops: np.ndarray) -> np.ndarray:
    """Latents float16 [T, C, S/8, S/8] of crops uint8 [T, S, S, 3]."""
    device = next(model.parameters()).device
    image = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).float() / 255
    parts: list[Tensor] = []
    for part in image.split(64):
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(model.encode(part).float())
    return torch.cat(parts).cpu().numpy().astype(np.float16)


def write(folder: Path, model: Autoencoder, crops: np.ndarray) -> None:
    """The arrays that the editor's recipes read, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "masked": encode(model, masked(crops)),
        "lower": np.ascontiguousarray(crops[:, LOWER:]),
        "face": np.stack([cv2.resize(c, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_AREA) for c in crops]),
        "pose": pose_of(crops),
        "latents": encode(model, crops),  # last: its presence says that the folder is whole
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def make(clip: Clip, model: Autoencoder, out: Path) -> None:
    """All people of one clip; one that is there already is left."""
    variants = 1 if clip.held_out else VARIANTS.get(clip.set_name, 4)
    for variant in range(variants):
        folder = out / f"{clip.folder.name}.{variant}"
        if (folder / "latents.npy").exists():
            continue
        stride = STRIDE.get(clip.set_name, 2)
        frames = np.arange(variant % stride, len(clip.crops), stride)
        crops = np.asarray(clip.crops[frames])
        if variant:
            crops = another_person(crops, np.random.default_rng([sum(clip.folder.name.encode()), variant]))
        write(folder, model, crops)
        if (clip.folder / "params.npy").exists():
            np.save(folder / "params.npy", np.load(clip.folder / "params.npy", allow_pickle=False)[frames])


def main(
    clips: Annotated[Path, typer.Option(help="folder that prepare wrote")] = Path("work/clips"),
    autoencoder: Annotated[Path, typer.Option(help="weights of the autoencoder")] = Path("work/nano/autoencoder.safetensors"),
    out: Annotated[Path, typer.Option(help="folder for the latents")] = Path("work/latents"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
) -> None:
    """Cache latents, masked latents and pixels for the editor's recipes."""
    model = Autoencoder(**load_preset(preset)["autoencoder"]).eval()
    load_weights(autoencoder, model)
    model.to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen: dict[str, int] = {}
    for clip in tqdm(load_clips(clips), unit="clip"):
        seen[clip.set_name] = seen.get(clip.set_name, 0) + 1
        if seen[clip.set_name] <= MAX_CLIPS.get(clip.set_name, 10_000):
            make(clip, model, out)


if __name__ == "__main__":
    command(main)
