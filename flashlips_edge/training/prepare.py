"""Videos to training clips: face crops and the sound that belongs to them, in WebDataset shards with a manifest.

python -m flashlips_edge.training.prepare VIDEO_OR_FOLDER... --out work/clips
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import torch
import typer
from tqdm import tqdm

from flashlips_edge.errors import UserError, reason
from flashlips_edge.files import NAME_BYTES, make_folder
from flashlips_edge.media.audio_file import read_audio
from flashlips_edge.media.clip import VIDEOS
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.syncnet import REACH, SHIPPED, frames_at_25_hz, load_syncnet, sync_score
from flashlips_edge.speech.features import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, log_mel
from flashlips_edge.speech.silence import silence_weight
from flashlips_edge.training.command import command
from flashlips_edge.training.pieces import Piece, pieces
from flashlips_edge.training.shards import Members, Shards
from flashlips_edge.training.workers import worker_pool

CLIP_NAME_BYTES = NAME_BYTES - 32  # files and folders of a clip are called after it, and a little more
MIN_SPEECH_STEPS = 12  # half a second
CERTAIN, CERTAIN_IN_PLACE = 3.0, 2.0  # standard errors; sound that is where it should be needs less proof than sound to be moved


class NoRoomError(UserError):
    """What is made of a video cannot be written: no fault of the video's, the run ends."""


class Prepared(NamedTuple):
    """What became of one video: an outcome in a sentence, and its clips, by name; their arrays lie in files until they are packed."""

    outcome: str
    clips: dict[str, Members]


def prepare_video(path: Path, parts: Path, size: int, weights: Path) -> Prepared:
    """Cut one video into clips of ``size`` px whose arrays lie in the folder ``parts``; what is wrong with it is the outcome.

    Raises:
        NoRoomError: the arrays cannot be written.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    name, notes, clips = clip_name(path), list[str](), list[Members]()
    try:
        if printable(path) != str(path):
            raise UserError("its name, or that of a folder around it, is not UTF-8; rename it")
        with VideoFile(path) as video:
            waveform, why = _sound(path)
            for piece in pieces(video, size):
                facts = {"source": printable(path), "start_ns": int(piece.pts_ns[0]), "frame_rate_hz": float(video.frame_rate)}
                try:
                    audio, note, found = check_sound(piece, waveform, why, weights)
                except UserError as error:
                    notes.append(f"dropped: {error}")
                    continue
                notes.append(f"kept{note}")
                arrays = {"crops": piece.crops, "pts_ns": piece.pts_ns - piece.pts_ns[0], "audio": audio}
                members: Members = {"json": facts | found}
                for array, values in arrays.items():
                    if values is not None:
                        members[f"{array}.npy"] = part = parts / f"{name}.{len(notes)}.{array}.npy"
                        _save(part, values)
                clips.append(members)
    except NoRoomError:
        raise
    except Exception as error:  # whatever it is about one odd video must not cost the others
        notes.append(f"dropped: {reason(error)}")
    notes = notes or ["dropped: it shows no face for as long as a second"]
    outcome = "; ".join(f"{count} {note}" for note, count in Counter(notes).items())
    names = [name] if len(notes) == 1 else [f"{name}~{i:03d}" for i in range(len(clips))]
    return Prepared(outcome, dict(zip(names, clips)))


def clip_name(path: Path) -> str:
    """``<folder>.<file>``, without further dots, and ``~``, which numbers a video's clips: the folder is the clip's set.

    No longer than CLIP_NAME_BYTES.
    """
    names = source_of(path).parent.name, path.stem
    folder, file = (printable(name).replace(".", "_").replace("~", "_") for name in names)
    folder = _shortened(folder, CLIP_NAME_BYTES // 2)
    return f"{folder}.{_shortened(file, CLIP_NAME_BYTES - len(f'{folder}.'.encode()))}"


def _shortened(name: str, length: int) -> str:
    """``name``, or as much of it as leaves room in ``length`` bytes for what tells it from others that begin like it."""
    data = name.encode()
    if len(data) <= length:
        return name
    digest = hashlib.sha256(data).hexdigest()[:16]
    return f"{data[: length - len(digest) - 1].decode(errors='ignore')}-{digest}"


def source_of(path: Path) -> Path:
    """The file that a link leads to, be it there or not."""
    return Path(os.path.realpath(path))


def source_name(path: Path) -> str:
    """By which the manifest knows a video."""
    return printable(source_of(path))


def printable(path: Path | str) -> str:
    """The path as text that a manifest can hold: a byte that is not UTF-8 as ``\\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_sound(piece: Piece, waveform: np.ndarray | None, why: str, weights: Path) -> tuple[np.ndarray | None, str, dict[str, float]]:
    """The piece's own sound float32 [N] at 16 kHz, moved to where its lips are; what is to be said about it; and what SyncNet found.

    None without a ``waveform`` of the video (``why`` says why) and where nobody speaks. UserError where sound and lips do not
    belong together.
    """
    if waveform is None:
        return None, f" without sound: {why}", {}
    pts_ns = piece.pts_ns - piece.pts_ns[0]
    length = int((pts_ns[-1] + np.median(np.diff(pts_ns))) * SAMPLE_RATE_HZ // 1_000_000_000)
    start = int(piece.pts_ns[0] * SAMPLE_RATE_HZ // 1_000_000_000)

    def late(frames: int) -> np.ndarray:
        first = start + frames * SAMPLES_PER_STEP
        part = np.pad(waveform[max(0, first) : max(0, first + length)], (max(0, -first), 0))[:length]
        return np.pad(part, (0, length - len(part)))

    if (silence_weight(late(0)) < 0.5).sum() < MIN_SPEECH_STEPS:
        return None, " without sound: nobody speaks", {}
    sync = sync_score(_network(weights), piece.crops[frames_at_25_hz(pts_ns)], log_mel(late(0)))
    in_place = abs(sync.offset) <= 1  # as exact as SyncNet is
    if sync.certainty < (CERTAIN_IN_PLACE if in_place else CERTAIN):
        raise UserError("sound and lips do not belong together")
    if abs(sync.offset) == REACH:
        raise UserError(f"sound and lips are {REACH} frames of 40 ms or more apart")
    found = {"sound_offset_frames": sync.offset, "sync_confidence": round(sync.confidence, 3)}
    if in_place:
        return late(0), "", found
    return late(sync.offset), f", its sound moved by {-sync.offset} frames of 40 ms", found


def main(
    videos: Annotated[list[Path], typer.Argument(help="video files, or folders of them")],
    out: Annotated[Path, typer.Option(help="folder for the shards")] = Path("work/clips"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper: the size of the crops")] = "nano",
    syncnet: Annotated[Path, typer.Option(help="weights of the network that checks sound against lips")] = SHIPPED,
    workers: Annotated[int, typer.Option(help="processes")] = 2,
) -> None:
    """Cut face crops and sound out of videos; a broken, silent or faceless file is reported and is no reason to stop.

    Where not one clip comes out, that is a mistake, and no new folder is left."""
    size = load_preset(preset)["crop_size"]
    load_syncnet(syncnet)
    paths = find_videos(videos)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    with Shards(out, size) as shards:
        check_names(paths, shards)
        new = [path for path in paths if not shards.done(source_name(path), _size(path))]
        make_folder(shards.parts)
        pool = worker_pool(max(1, min(workers, len(new))))
        try:
            prepared = pool.map(prepare_video, new, repeat(shards.parts), repeat(size), repeat(syncnet))
            for path, (outcome, clips) in zip(tqdm(new, unit="video"), prepared):
                shards.add(source_name(path), _size(path), outcome, clips)
                for part in (p for members in clips.values() for p in members.values() if isinstance(p, Path)):
                    part.unlink()
                if outcome != "1 kept":
                    tqdm.write(_for_terminal(f"{printable(path)}: {outcome}"))
        except BrokenProcessPool:
            words = "one of them was killed, most likely because memory ran out; what is done is kept, run it again with fewer"
            raise UserError(f"--workers {workers}: {words}") from None
        finally:
            pool.shutdown(cancel_futures=True)
    inputs = [shards.manifest["inputs"][source_name(path)] for path in paths]
    if not any(entry["clips"] for entry in inputs):
        _remove(made)
        raise UserError(f"no clip came out of {len(paths)} video{'s' * (len(paths) > 1)}; {paths[0]}: {inputs[0]['outcome']}")
    count, used = sum(len(i["clips"]) for i in inputs), sum(bool(i["clips"]) for i in inputs)
    print(_for_terminal(f"{count} clips of {used} of {len(paths)} videos in {printable(out)}"))


def find_videos(videos: list[Path]) -> list[Path]:
    """The files named and the videos in the folders named. Raises UserError where there is none, or two would have the same name."""
    paths: dict[str, Path] = {}
    for given in videos:
        found = sorted(p for p in given.rglob("*") if p.suffix.lower()[1:] in VIDEOS) if given.is_dir() else [given]
        if not found or not given.exists():
            raise UserError(
                f"{given}: there is no such video, or none in that folder; give videos ({', '.join(VIDEOS)}) or folders of them"
            )
        for path in found:
            other = paths.setdefault(clip_name(path), path)
            if source_of(other) != source_of(path):
                raise _same_name(path, other)
    return list(paths.values())


def check_names(paths: list[Path], shards: Shards) -> None:
    """Raises UserError where a new video would be called like one of an earlier run.

    Unless it is that video, moved: where the old file is gone and the new one has its size, the manifest follows it.
    """
    inputs = shards.manifest["inputs"]
    owners = {clip.split("~")[0]: source for source, entry in inputs.items() for clip in entry["clips"]}
    for path in paths:
        source, size, owner = source_name(path), _size(path), owners.get(clip_name(path))
        if owner is None or shards.done(source, size):
            continue
        if os.path.exists(owner) or not size or inputs[owner]["bytes"] != size:
            raise _same_name(path, owner)
        inputs[source] = inputs.pop(owner)


def _same_name(path: Path, other: Path | str) -> UserError:
    return UserError(f"{path} and {other} would both be called {clip_name(path)}; rename one, or give it another folder")


def _for_terminal(words: str) -> str:
    """With what standard output cannot show escaped, as standard error does by itself."""
    encoding = sys.stdout.encoding or "utf-8"
    return words.encode(encoding, "backslashreplace").decode(encoding)


def _size(path: Path) -> int:
    """In bytes; 0 of a link that leads nowhere and of a file that has vanished, which are then tried again when they are back."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(made: list[Path]) -> None:
    """The folder of shards and those around it, as far as this run made them and nobody else uses them."""
    if made:
        shutil.rmtree(made[0], ignore_errors=True)
    for folder in made[1:]:
        with suppress(OSError):
            folder.rmdir()


def _save(part: Path, values: np.ndarray) -> None:
    try:
        np.save(part, values)
    except OSError as error:
        raise NoRoomError(f"--out {part.parents[1]}: {error.strerror or error}; make room and run it again") from None


@cache
def _network(weights: Path) -> torch.nn.Module:
    return load_syncnet(weights)


def _sound(path: Path) -> tuple[np.ndarray | None, str]:
    try:
        return read_audio(path), ""
    except UserError as error:
        return None, str(error)


if __name__ == "__main__":
    command(main)
