"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flashlips_edge.errors import UserError

NAME_BYTES = 255  # of a file's name, on Linux
OWN = 0o600  # who writes a file may read and write it, whatever it replaces


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` with the same suffix; renamed to it on success, removed on any exception.

    What is replaced keeps its mode, and until then nobody reads the new file who may not read the old one.

    Raises:
        UserError: the folder of ``path`` cannot be made or written, or what stands in its place cannot be replaced.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode(path)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode | OWN))
    except OSError as error:
        raise UserError(f"cannot write {path}: {_reason(error)}; choose a folder that can be written") from None
    try:
        yield temporary
        with open(temporary, "rb") as written:
            if mode is not None:
                with suppress(OSError):  # a file system without modes
                    os.fchmod(written.fileno(), mode)
            os.fsync(written.fileno())
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"{path}: it cannot be written: {error.strerror or error}; give another place") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: str | Path, argument: str) -> None:
    """Raises UserError where no file can be written at ``path``. Nothing is made yet: a run that is refused later leaves no folder."""
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{argument} {path}: this is a folder; give the name of a file")
        there = next(folder for folder in path.absolute().parents if folder.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{argument} {path}: it cannot be written: {error.strerror}; give another place") from None


def make_folder(path: str | Path) -> Path:
    """``path`` as a folder in which files can be made.

    Raises:
        UserError: it cannot be made, or not be written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"cannot write to {path}: {_reason(error)}; choose a folder that can be written") from None
    return path


def _beside(path: Path) -> Path:
    """A name for what becomes ``path``, which nobody foresees; no longer than a name may be where that of ``path`` is not."""
    end = f".{secrets.token_hex(4)}{path.suffix}"
    name = f".{path.stem}{end}"
    if len(os.fsencode(name)) > NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.stem)).hexdigest()[:16]}{end}"
    return path.with_name(name)


def _mode(path: Path) -> int | None:
    """The permissions of the file at ``path``; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(status.st_mode) & 0o777 if stat.S_ISREG(status.st_mode) else None


def _reason(error: OSError) -> str:
    """In words; mkdir calls a file in a folder's place one that exists."""
    return os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror or str(error)


def read_bytes(path: str | Path, most: int) -> bytes:
    """All of a file. OSError too where it is larger than ``most`` bytes: a sparse one of a terabyte costs nothing to make."""
    with open(path, "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and {most} are the most")
        return file.read(size)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically. Raises UserError as `atomic_path` does, and where there is no room."""
    with atomic_path(path) as temporary:
        try:
            temporary.write_bytes(data)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}; make room, or choose another place") from None
