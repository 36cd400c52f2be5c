"""Prepared clips on disk, read in place through memory maps and drawn with the same weight per speaker set, not per minute."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from flashlips_edge.errors import UserError

SET_WEIGHT = {"grid_s1": 0.42, "grid_multi": 0.36, "crema_d": 0.1, "synthetic": 0.1, "demo": 0.02}  # one man fills the minutes


@dataclass(frozen=True)
class Member:
    """A .npy array that starts at byte ``offset`` of ``path``: a member of a shard, or a file of its own at 0."""

    path: Path
    offset: int = 0

    def read(self) -> np.ndarray:
        """The array, read-only, mapped and not copied. Raises UserError where it is not whole."""
        try:
            data = _mapped(self.path)
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                return np.ndarray(shape, dtype, data, file.tell())
        except Exception:  # numpy has no common base class for what it says of damaged bytes
            raise _damaged(self.path) from None


@dataclass(frozen=True, eq=False)
class Clip:
    """One prepared clip of one face, ``name`` = ``<set>.<clip>``; its arrays are read when they are asked for."""

    name: str
    members: dict[str, Member]

    @property
    def set_name(self) -> str:
        """The folder that the video lay in."""
        return self.name.split(".")[0]

    @cached_property
    def crops(self) -> np.ndarray:
        """uint8 RGB [T, S, S, 3]."""
        return self.members["crops"].read()

    @cached_property
    def pts_ns(self) -> np.ndarray:
        """int64 [T], from the clip's start; sample 0 of the sound belongs to 0."""
        return self.members["pts_ns"].read()

    @cached_property
    def audio(self) -> np.ndarray | None:
        """float32 [N] at 16 kHz; None where nobody speaks."""
        return self.members["audio"].read() if "audio" in self.members else None

    @cached_property
    def params(self) -> np.ndarray | None:
        """The synthetic head's true lips float32 [T, 6]; None for a real person."""
        return self.members["params"].read() if "params" in self.members else None

    @property
    def held_out(self) -> bool:
        """One clip in ten, by name, watches the training; the test folder is never touched."""
        return sum(self.name.encode()) % 10 == 0


def load_clips(folder: Path) -> list[Clip]:
    """Every prepared clip of ``folder``, sorted by name: those in its shards, and those that are a folder of arrays each.

    A clip is of one shard or one folder: of two with the same name the later is taken. A folder without crops adds to a shard's clip.

    Raises UserError when there is none, or a shard or an array is damaged.
    """
    members: dict[str, dict[str, Member]] = {}
    for path in sorted(folder.glob("[!.]*.tar")):  # a dot: prepare is still writing it
        members |= _members(path)
    for name, arrays in _folders(folder).items():
        members[name] = arrays if "crops" in arrays else members.get(name, {}) | arrays
    clips = [Clip(name, arrays) for name, arrays in sorted(members.items()) if "crops" in arrays]
    if not clips:
        raise UserError(f"--clips {folder}: no prepared clips; run python -m flashlips_edge.training.prepare first")
    return clips


def set_weights(clips: list[Clip]) -> np.ndarray:
    """Probability float64 [len(clips)] of drawing each clip: sets by SET_WEIGHT, clips of a set alike."""
    counts = {name: sum(c.set_name == name for c in clips) for name in {c.set_name for c in clips}}
    weights = np.array([SET_WEIGHT.get(c.set_name, 0.2) / counts[c.set_name] for c in clips])
    return weights / weights.sum()


def _members(path: Path) -> dict[str, dict[str, Member]]:
    """By clip name and array name every array in a shard, whose members are ``<set>/<clip>.<array>.npy``."""
    try:
        with tarfile.open(path, "r:") as shard:
            found = [(m.name.removesuffix(".npy"), m.offset_data) for m in shard if m.name.endswith(".npy")]
    except tarfile.TarError:
        raise UserError(f"--clips {path.parent}: {path.name} is damaged; delete it and run prepare again") from None
    clips: dict[str, dict[str, Member]] = {}
    for member, offset in found:
        name, array = member.rsplit(".", 1)
        clips.setdefault(name.replace("/", "."), {})[array] = Member(path, offset)
    return clips


def _folders(folder: Path) -> dict[str, dict[str, Member]]:
    """By clip name and array name every array that is a file ``<set>.<clip>/<array>.npy``."""
    clips: dict[str, dict[str, Member]] = {}
    for path in sorted(folder.glob("[!.]*/*.npy")):
        _check(path)
        clips.setdefault(path.parent.name, {})[path.stem] = Member(path)
    return clips


def _check(path: Path) -> None:
    """Raises UserError where a file does not hold a whole array; said before a stage begins, not when it draws the clip."""
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:
        raise _damaged(path) from None


def _damaged(path: Path) -> UserError:
    clip = path.parent if path.suffix == ".npy" else path  # what is to be made anew: the folder of one clip, or a shard
    name = path.relative_to(clip.parent)
    return UserError(f"--clips {clip.parent}: {name} cannot be read or is damaged; delete {clip.name} and run prepare again")


@cache
def _mapped(path: Path) -> np.memmap:
    """The bytes of a file; one map for all clips of a shard, so that a thousand clips do not hold a thousand files open."""
    return np.memmap(path, np.uint8, "r")
