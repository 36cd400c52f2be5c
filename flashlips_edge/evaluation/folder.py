"""Which videos a folder holds, as sets."""

from __future__ import annotations

from pathlib import Path

from flashlips_edge.errors import UserError
from flashlips_edge.media.clip import PICTURES, VIDEOS


def sets_of(folder: Path, quick: bool = False) -> dict[str, list[Path]]:
    """Videos by set, both in order of their names: those of the folder itself and those of each folder in it, named after it.

    `quick` keeps the first and the last of each set. UserError where there is no folder or no video."""
    if not folder.exists():
        raise UserError(f"FOLDER {folder} is not there: name a folder of videos, or set FLASHLIPS_DATA to the recorded data's")
    if not folder.is_dir():
        raise UserError(f"FOLDER {folder} is a file: give a folder of videos")
    found: dict[str, list[Path]] = {}
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if paths := videos_in(place):
            if (name := name_of(place)) in found:
                raise UserError(f"FOLDER {folder}: it and the folder {name} in it hold sets of one name; rename one")
            found[name] = sorted({paths[0], paths[-1]}) if quick else paths
    if not found:
        raise UserError(f"FOLDER {folder} holds no videos; it or the folders in it must hold {', '.join(VIDEOS)} files.")
    return found


def name_of(folder: Path) -> str:
    """Of the set that a folder is."""
    return (folder.resolve() if folder.name in ("", "..") else folder).name


def videos_in(folder: Path) -> list[Path]:
    """The folder's own videos, in order of their names."""
    return _files(folder, VIDEOS)


def photos_of(folder: Path) -> list[Path]:
    """The pictures in its folder `photos`, if there is one."""
    return _files(folder / "photos", PICTURES)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower()[1:] in suffixes and not path.name.startswith("."))
