"""Prepared clips as one small file, to train on a machine that has not your videos: a rented GPU, say.

    python -m flashlips_edge.training.pack --clips work/edge/clips --out clips.zip --megabytes 40
    python -m flashlips_edge.training --data clips.zip --preset edge --work work/edge --out work/edge/bundle        # there

Crops as H.264 at full chroma, about 42 dB from the originals and a hundredth of their size; sound in 16 bits. Sets take turns, so that
what has few clips is in it whole. The synthetic head is left out: it is drawn there.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from tqdm import tqdm

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path
from flashlips_edge.speech.features import SAMPLE_RATE_HZ
from flashlips_edge.training.clips import Clip, load_clips
from flashlips_edge.training.command import command

VERSION = 1
ENCODER = {"crf": "16", "preset": "medium"}
FULL_SCALE = 32767
MEMBER = re.compile(r"[^/.][^/]*/(crops\.mp4|arrays\.npz)")  # nothing of a pack is written anywhere else
ENTRY = 400  # bytes of a zip file for the names of a clip's two members


def in_turn(clips: list[Clip]) -> Iterator[Clip]:
    """The clips of real people: one of each set, then the next of each."""
    sets: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.params is None:
            sets.setdefault(clip.set_name, []).append(clip)
    for turn in zip_longest(*sets.values()):
        yield from (clip for clip in turn if clip is not None)


def encode(crops: np.ndarray) -> bytes:
    """An MP4 of crops uint8 [T, S, S, 3]."""
    import av  # where a pack is only unpacked there may be none

    buffer = io.BytesIO()
    with av.open(buffer, "w", "mp4") as file:
        stream = file.add_stream("libx264", rate=25, options=ENCODER)
        stream.height, stream.width = crops.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for crop in crops:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(crop), format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def decode(video: bytes) -> np.ndarray:
    """The crops of ``encode``."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(video)
        file.flush()
        capture, crops = cv2.VideoCapture(file.name), []
        while (read := capture.read())[0]:
            crops.append(read[1][..., ::-1])
        capture.release()
    return np.stack(crops) if crops else np.empty((0, 0, 0, 3), np.uint8)


def members_of(clip: Clip, seconds: float) -> dict[str, bytes]:
    """The files of a clip by name, of its first ``seconds``."""
    count = int(np.searchsorted(clip.pts_ns, seconds * 1e9))
    arrays, buffer = {"pts_ns": clip.pts_ns[:count]}, io.BytesIO()
    if clip.audio is not None:
        sound = clip.audio[: round(seconds * SAMPLE_RATE_HZ)]
        arrays["audio"] = np.round(np.clip(sound, -1, 1) * FULL_SCALE).astype(np.int16)
    np.savez_compressed(buffer, **arrays)
    return {"crops.mp4": encode(clip.crops[:count]), "arrays.npz": buffer.getvalue()}


def unpack(path: Path, out: Path, crop_size: int) -> None:
    """The clips of a pack as folders in ``out``; one that is there already is left.

    Raises:
        UserError: the file is no pack, is damaged, or its crops are not of ``crop_size`` px.
    """
    try:
        with zipfile.ZipFile(path) as file:
            about = json.loads(file.read("pack.json"))
            if (about["version"], about["crop_size"]) != (VERSION, crop_size):
                raise UserError(
                    f"--data {path}: crops of {about['crop_size']} px, version {about['version']}; {crop_size} px and 1 are needed"
                )
            names = [name for name in file.namelist() if MEMBER.fullmatch(name)]
            clips = [name for name in dict.fromkeys(name.split("/")[0] for name in names) if not (out / name).exists()]
            parts = {clip: {n.split("/")[1]: file.read(n) for n in names if n.startswith(f"{clip}/")} for clip in clips}
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError):
        raise UserError(
            f"--data {path}: no file of training.pack, or a damaged one; give a folder of videos, or pack the clips again"
        ) from None
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--work {out.parent}: {error.strerror}; name a folder that can be written") from None
    with ThreadPoolExecutor() as pool:
        for _ in tqdm(pool.map(lambda clip: _write(out / clip, parts[clip]), clips), total=len(clips), desc="unpacking", unit="clip"):
            pass


def _write(folder: Path, parts: dict[str, bytes]) -> None:
    """One clip, as a whole."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    if len(parts) < 2:
        raise UserError(f"--data: {folder.name} is not whole; pack the clips again")
    arrays, crops = np.load(io.BytesIO(parts["arrays.npz"]), allow_pickle=False), decode(parts["crops.mp4"])
    if len(crops) != len(arrays["pts_ns"]):
        count = f"{len(crops)} pictures of {len(arrays['pts_ns'])}"
        raise UserError(f"--data: {folder.name} has {count}: it is damaged, or OpenCV reads no H.264 here; pack the clips again")
    np.save(temporary / "crops.npy", crops)
    np.save(temporary / "pts_ns.npy", arrays["pts_ns"])
    if "audio" in arrays:
        np.save(temporary / "audio.npy", arrays["audio"].astype(np.float32) / FULL_SCALE)
    temporary.rename(folder)


def main(
    clips: Annotated[Path, typer.Option(help="folder that prepare wrote")] = Path("work/clips"),
    out: Annotated[Path, typer.Option(help="the file")] = Path("work/clips.zip"),
    megabytes: Annotated[float, typer.Option(help="of the file at most", min=1)] = 40.0,
    seconds: Annotated[float, typer.Option(help="of each clip at most: fewer seconds, more clips", min=1)] = 4.0,
) -> None:
    """Pack clips into one file."""
    chosen = list(in_turn(load_clips(clips)))
    if not chosen:
        raise UserError(f"--clips {clips}: nobody but the synthetic head is there, which needs no pack; prepare some videos first")
    packed, size = list[Clip](), 0
    with atomic_path(out) as temporary:
        with zipfile.ZipFile(temporary, "w") as file:
            file.writestr("pack.json", json.dumps({"version": VERSION, "crop_size": chosen[0].crops.shape[1]}))
            for clip in tqdm(chosen, unit="clip"):
                members = members_of(clip, seconds)
                size += ENTRY + sum(map(len, members.values()))
                if size > megabytes * 1e6:
                    break
                for name, data in members.items():
                    file.writestr(f"{clip.name}/{name}", data)
                packed.append(clip)
        if not packed:
            raise UserError(f"--megabytes {megabytes:g} is too small for one clip; give more")
    print(f"{out}: {len(packed)} of {len(chosen)} clips, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    command(main)
