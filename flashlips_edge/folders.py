"""Folders that change places whole."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flashlips_edge.errors import UserError

AT_THE_PATHS, EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE


def put(new: Path, place: Path) -> None:
    """Move the folder `new` to `place`. What stood there is whole until the very moment, and is then removed."""
    if not place.exists():
        new.rename(place)
        return
    if ctypes.CDLL(None, use_errno=True).renameat2(AT_THE_PATHS, os.fsencode(new), AT_THE_PATHS, os.fsencode(place), EXCHANGE) == 0:
        shutil.rmtree(new)
        return
    old = new.with_name(f"{new.name}.old")  # a file system that cannot exchange two names
    place.rename(old)
    new.rename(place)
    shutil.rmtree(old)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Held by one process at a time. UserError where another has it, or the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose a folder that can be written") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another build is at work in {folder}; wait for its end") from None
        yield
