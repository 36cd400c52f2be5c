"""The stages of a build, each kept in a folder that is named by what went into it: what is the same is not made again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = 16  # hexadecimal digits of a folder's name


@dataclass
class Stages:
    """`folder` holds the results; `say` gets a line for each stage."""

    folder: Path
    count: int
    say: Callable[[str], None]
    done: int = 0

    def run(self, name: str, inputs: dict[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder that `make` filled from `inputs`, now or in an earlier build. Results of other inputs under this name are removed."""
        self.done += 1
        place = self.folder / f"{name}-{digest(inputs)[:KEY]}"
        if place.is_dir():
            self.say(f"[{self.done}/{self.count}] {name}: as before")
            return place
        self.say(f"[{self.done}/{self.count}] {name}")
        for old in self.folder.glob(f".{name}-{'?' * KEY}.work"):
            if old.name != f".{place.name}.work":  # what is half made of these inputs is gone on with
                shutil.rmtree(old)
        start = time.monotonic()
        make(place)
        for old in self.folder.glob(f"{name}-{'?' * KEY}"):
            if old != place:
                shutil.rmtree(old)
        self.say(f"[{self.done}/{self.count}] {name}: {time.monotonic() - start:.0f} s")
        return place


def digest(inputs: dict[str, Any]) -> str:
    """sha256 of a table of plain data."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def digests(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """sha256 of files by their names under `root`."""
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def code(root: Path, *patterns: str) -> dict[str, str]:
    """sha256 of the code that a stage runs, without its tests."""
    found = {path for pattern in patterns for path in root.glob(pattern) if not path.name.startswith(("test_", "conftest"))}
    return digests(found, root)


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, none for what is not installed."""
    return {name: _version(name) for name in packages}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
