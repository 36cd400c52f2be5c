"""Folders that change places whole."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flashlips_edge.errors import UserError

AT_THE_PATHS, EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
CLAIM = ".flashlips-edge"  # in a folder in which another is made: says which and where, and is locked while its process lives


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
def beside(place: Path) -> Iterator[Path]:
    """A hidden folder beside `place`, in which it can be made; it goes at the end, and first one that a killed predecessor left.

    Raises:
        OSError: it cannot be made.
    """
    _remove_left(place)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as temporary:
        new = Path(temporary) / f"{CLAIM}.new"
        with open(new, "wb") as claim:
            claim.write(_claim(place))
            claim.flush()
            with suppress(OSError):  # a file system without locks: what is left there stays
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                new.rename(new.with_name(CLAIM))  # nobody finds it unlocked while this process lives
            yield Path(temporary)


def _remove_left(place: Path) -> None:
    """Remove what `beside` made for `place` in a process of this user that is no more; leave all else."""
    folders: list[Path] = []
    with suppress(OSError):  # a folder that may be written and not read
        folders = [each for each in place.parent.iterdir() if each.name.startswith(f".{place.name}.") and not each.is_symlink()]
    for folder in folders:
        with suppress(OSError), open(folder / CLAIM, "rb", opener=_open_own) as claim:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if claim.read() == _claim(place):
                shutil.rmtree(folder)


def _claim(place: Path) -> bytes:
    """Whose a folder is: locks of a network's disk may hold on one machine only."""
    return os.fsencode(f"{place.name}\n{platform.node()}\n")


def _open_own(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if os.fstat(descriptor).st_uid != os.getuid():
        os.close(descriptor)
        raise PermissionError
    return descriptor


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
