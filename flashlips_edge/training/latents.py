"""Stage 2 of the recipe: every clip, and other people made from it, as cached latents.

python -m flashlips_edge.training.latents --clips work/clips --autoencoder work/nano/autoencoder.safetensors --out work/latents
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Optional

import cv2
import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm

from flashlips_edge.errors import UserError
from flashlips_edge.face.pose import upper_face
from flashlips_edge.files import atomic_path, make_folder, write_bytes
from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.lips import FACE_SIZE
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.sdxl import SDXLAutoencoder, load_sdxl
from flashlips_edge.training import boxes
from flashlips_edge.training.augment import another_person
from flashlips_edge.training.checkpoint import load_weights
from flashlips_edge.training.clips import Clip, load_clips
from flashlips_edge.training.command import command
from flashlips_edge.training.pace import pace
from flashlips_edge.training.precision import autocast

VARIANTS = {"grid_s1": 2, "grid_multi": 40, "crema_d": 32, "synthetic": 1, "demo": 1}  # people made from each clip, the clip itself counted
STRIDE = {"grid_s1": 1, "synthetic": 1, "demo": 1}  # every n-th frame, elsewhere every second
MAX_CLIPS = {"grid_s1": 700}
MADE_WITH = "autoencoder.sha256"  # of a folder of latents
SdxlFolder = Annotated[Optional[Path], typer.Option("--sdxl", help="folder of the SDXL VAE; none: the autoencoder of our own")]  # noqa: UP045


def load_autoencoder(preset: dict[str, Any], weights: Path, sdxl: Path | None) -> Autoencoder | SDXLAutoencoder:
    """The frozen autoencoder: the SDXL VAE of a folder, or our own of a weights file. Raises UserError where there is none."""
    if sdxl is not None:
        return load_sdxl(sdxl)
    if not weights.is_file():
        raise UserError(f"--autoencoder {weights}: no such file; run python -m flashlips_edge.training.autoencoder first")
    model = Autoencoder(**preset["autoencoder"])
    load_weights(weights, model)
    return model.eval().requires_grad_(False)


def masked(crops: np.ndarray) -> np.ndarray:
    """A copy of crops uint8 [T, S, S, 3] with the lower face grey."""
    top, bottom, left, right = boxes.MASK.pixels(crops.shape[1])
    result = crops.copy()
    result[:, top:bottom, left:right] = 128
    return result


def pose_of(crops: np.ndarray) -> np.ndarray:
    """What tells two head poses apart, float32 [T, 200]."""
    return np.stack([upper_face(crop) for crop in crops])


@torch.no_grad()
def encode(model: Autoencoder | SDXLAutoencoder, crops: np.ndarray) -> np.ndarray:
    """Latents float16 [T, C, S/8, S/8] of crops uint8 [T, S, S, 3]."""
    device = next(model.parameters()).device
    parts: list[Tensor] = []
    for part in torch.from_numpy(crops).split(64):
        image = part.to(device).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).float() / 255
        with autocast(device.type):
            parts.append(model.encode(image).float())
    return torch.cat(parts).cpu().numpy().astype(np.float16)


def write(
    folder: Path,
    model: Autoencoder | SDXLAutoencoder,
    crops: np.ndarray,
    lower: int = 56,
    face_size: int = FACE_SIZE,
    level: np.ndarray | None = None,
) -> None:
    """The arrays that the editor's recipes read, one file each; ``lower`` is the first pixel row that its losses see, ``face_size``
    the lips encoder's, ``level`` the crops before the head was turned, where it was."""
    make_folder(folder)
    others = {"masked": encode(model, masked(crops)), "pose": pose_of(crops)}
    for prefix, pictures in {"": crops, "level_": level}.items():
        if pictures is not None:
            others[f"{prefix}lower"] = np.ascontiguousarray(pictures[:, lower:])
            others[f"{prefix}face"] = np.stack([cv2.resize(c, (face_size, face_size), interpolation=cv2.INTER_AREA) for c in pictures])
    for name, array in others.items():
        np.save(folder / f"{name}.npy", array)
    with atomic_path(folder / "latents.npy") as temporary:  # last, and all at once: its presence says that the folder is whole
        np.save(temporary, encode(model, crops))


def make(clip: Clip, model: Autoencoder | SDXLAutoencoder, preset: dict[str, Any], out: Path, people: int) -> None:
    """``people`` people of one clip, the first of whom is the clip's own; one that is there already is left.

    A clip may bring ``lips.npy``, uint8 [T, S, S], 1 on the lips, from a face-parsing network; its other people, warped, do without.
    """
    lower, face_size = boxes.lower_row(preset), preset["lips"].get("face_size", FACE_SIZE)
    for variant in range(people):
        folder = out / f"{clip.name}.{variant}"
        if (folder / "latents.npy").exists():
            continue
        stride = STRIDE.get(clip.set_name, 2)
        frames = np.arange(variant % stride, len(clip.crops), stride)
        crops, level = np.asarray(clip.crops[frames]), None
        make_folder(folder)
        if clip.params is not None:
            np.save(folder / "params.npy", clip.params[frames])
        if variant:
            seed = int.from_bytes(hashlib.sha256(clip.name.encode()).digest()[:8], "big")  # no two clips become the same person
            crops, level = another_person(crops, np.random.default_rng([seed, variant]))
        elif "lips" in clip.members:
            np.save(folder / "lips.npy", clip.members["lips"].read()[frames, lower:] > 0)
        write(folder, model, crops, lower, face_size, level)


def keep_to(model: Autoencoder | SDXLAutoencoder, out: Path) -> None:
    """Note in the folder ``out`` whose latents it holds. Raises UserError where they are another autoencoder's."""
    digest = hashlib.sha256(b"".join(v.float().contiguous().numpy().tobytes() for v in model.state_dict().values())).hexdigest()
    note = out / MADE_WITH
    if note.is_file() and note.read_text() != digest:
        raise UserError(f"--out {out}: holds latents of another autoencoder; delete them, or name another folder")
    make_folder(out)
    write_bytes(note, digest.encode())


def main(
    clips: Annotated[Path, typer.Option(help="folder that prepare wrote")] = Path("work/clips"),
    autoencoder: Annotated[Path, typer.Option(help="weights of the autoencoder")] = Path("work/nano/autoencoder.safetensors"),
    out: Annotated[Path, typer.Option(help="folder for the latents")] = Path("work/latents"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    sdxl: SdxlFolder = None,
) -> None:
    """Cache latents, masked latents and pixels for the editor's recipes."""
    sizes = load_preset(preset)
    model = load_autoencoder(sizes, autoencoder, sdxl)
    keep_to(model, out)
    gpu = torch.cuda.is_available()
    model.to("cuda" if gpu else "cpu", memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen: dict[str, int] = {}
    chosen: dict[Clip, int] = {}  # how many people of each
    for clip in load_clips(clips):
        size = clip.crops.shape[1]
        if size != sizes["crop_size"]:
            wanted = f"preset {preset} needs {sizes['crop_size']}; prepare them with --preset {preset}"
            raise UserError(f"--clips {clips}: {clip.name} is {size} px, {wanted}")
        seen[clip.set_name] = seen.get(clip.set_name, 0) + 1
        if seen[clip.set_name] <= MAX_CLIPS.get(clip.set_name, 10_000):
            people = VARIANTS.get(clip.set_name, 4)
            chosen[clip] = min(2, people) if clip.held_out else pace().of(people)
    # a GPU waits for other people to be drawn, a CPU for the network, which has its own threads
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if gpu else 1) as pool:
        made = pool.map(lambda item: make(item[0], model, sizes, out, item[1]), chosen.items())
        for _ in tqdm(made, total=len(chosen), unit="clip"):
            pass


if __name__ == "__main__":
    command(main)
