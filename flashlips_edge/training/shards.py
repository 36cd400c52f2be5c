"""Shards: tar files of prepared clips as WebDataset reads them, and the manifest that says what became of every input.

clips-00000.tar   members <set>/<clip>.crops.npy, .pts_ns.npy, .audio.npy, .params.npy, .json; those of a clip one after another
manifest.json     crop_size in px; shards: sha256, bytes and number of clips; inputs: bytes, outcome, clips and the shard that holds them
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path, write_bytes

SHARD_BYTES = 256_000_000  # a shard is closed when it holds this much
VERSION = 1
INPUT = {"bytes", "clips", "shard"}  # what is looked at of the manifest's entry of an input

Members = dict[str, "np.ndarray | dict[str, Any] | Path"]  # by extension: an array, a file of one, or what is to be JSON


class Shards:
    """The shards of ``folder``, written by one process at a time: a context manager.

    What is inside the block is never half done: a shard appears when it is whole, its inputs count as done from then on. Leaving
    the block, by an exception too, closes the last shard with what it has.

    Raises:
        UserError: another process writes to ``folder``, it cannot be written, its manifest is damaged, or it holds crops of another size.
    """

    def __init__(self, folder: Path, crop_size: int) -> None:
        self.folder, self.crop_size = folder, crop_size
        self.manifest: dict[str, Any] = {"version": VERSION, "crop_size": crop_size, "shards": {}, "inputs": {}}
        self._pending: dict[str, Any] = {}  # inputs of the open shard
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> Shards:
        self._stack = ExitStack()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self._stack.enter_context(open(self.folder / ".lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out {self.folder}: another process writes there; wait for it or choose another folder") from None
        except OSError as error:
            raise UserError(f"--out {self.folder}: {error.strerror}; choose a folder that can be written") from None
        shutil.rmtree(self.parts, ignore_errors=True)  # of a run that was killed
        for left in self.folder.glob(".clips-*.tar"):
            left.unlink()
        if (self.folder / "manifest.json").exists():
            try:
                self.manifest = self._read_manifest()
                self._forget_missing_shards()
            except UserError:
                self._stack.close()
                raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            shutil.rmtree(self.parts, ignore_errors=True)  # first: on a full disk it makes room for the end of the shard
            self.close_shard()

    @property
    def parts(self) -> Path:
        """A folder for arrays on their way into a shard; nobody takes it for clips, and it is removed at the end."""
        return self.folder / ".parts"

    def done(self, source: str, size: int) -> bool:
        """Whether the manifest has the input; one of which nothing was kept is tried again when its size in bytes has changed."""
        entry = self.manifest["inputs"].get(source)
        return entry is not None and (bool(entry["clips"]) or entry["bytes"] == size)

    def add(self, source: str, size: int, outcome: str, clips: dict[str, Members]) -> None:
        """Put the clips of one input, by name ``<set>.<clip>``, into a shard, and its outcome into the manifest."""
        start = self._tar.offset if self._tar else 0
        try:
            for name, members in clips.items():
                self._write(name, members)
        except BaseException as error:
            if self._tar is not None:  # an input is whole or not there
                self._file.seek(start)
                self._file.truncate()
                self._tar.offset = start
            if isinstance(error, OSError):
                raise self._no_room(error) from None
            raise
        shard = self._name if clips else None
        self._pending[source] = {"bytes": size, "outcome": outcome, "clips": sorted(clips), "shard": shard}
        if self._tar is not None and self._tar.offset >= SHARD_BYTES:
            self.close_shard()

    def close_shard(self) -> None:
        """Finish the open shard, if there is one, and write the manifest."""
        try:
            self._finish()
        except OSError as error:
            raise self._no_room(error) from None

    def _finish(self) -> None:
        """What `close_shard` does; OSError where there is no room."""
        if self._tar is not None:
            try:
                self._shard.close()
            except BaseException:
                self._pending = {}  # a shard that was not finished takes its inputs with it
                raise
            finally:
                self._tar = None
            path = self.folder / self._name
            clips = sum(len(entry["clips"]) for entry in self._pending.values())
            if clips:
                self.manifest["shards"][path.name] = {"sha256": _sha256(path), "bytes": path.stat().st_size, "clips": clips}
            else:
                path.unlink()  # its only input failed
        self.manifest["inputs"] |= self._pending
        self._pending = {}
        write_bytes(self.folder / "manifest.json", json.dumps(self.manifest, indent=1, ensure_ascii=False).encode())

    def _no_room(self, error: OSError) -> UserError:
        return UserError(f"--out {self.folder}: {error.strerror or error}; make room and run it again")

    def _read_manifest(self) -> dict[str, Any]:
        """The manifest of an earlier run, which has all that this one looks at."""
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
            size, inputs, shards = manifest["crop_size"], manifest["inputs"].values(), manifest["shards"].values()
            whole = all(entry.keys() >= INPUT for entry in inputs) and all("bytes" in shard for shard in shards)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            advice = "choose another folder, or delete this one and prepare all of it again"
            raise UserError(f"--out {self.folder}: its manifest.json cannot be read or is damaged; {advice}") from None
        if size != self.crop_size:
            raise UserError(f"--out {self.folder}: it holds crops of {size} px, not {self.crop_size}; choose another folder")
        return manifest

    def _write(self, name: str, members: Members) -> None:
        """Append a clip to the open shard, or to a new one."""
        if self._tar is None:
            self._name = next(n for i in range(10**6) if (n := f"clips-{i:05d}.tar") not in self.manifest["shards"])
            self._shard = ExitStack()
            self._file, self._tar = self._shard.enter_context(_new_shard(self.folder / self._name))
        for extension, content in members.items():
            data = content.read_bytes() if isinstance(content, Path) else _encoded(content)
            info = tarfile.TarInfo(f"{name.replace('.', '/', 1)}.{extension}")
            info.size = len(data)
            self._tar.addfile(info, io.BytesIO(data))

    def _forget_missing_shards(self) -> None:
        """A shard that was deleted or cut off takes its inputs with it, so that they are prepared again."""
        there = {n for n, s in self.manifest["shards"].items() if (p := self.folder / n).exists() and p.stat().st_size == s["bytes"]}
        self.manifest["shards"] = {n: s for n, s in self.manifest["shards"].items() if n in there}
        inputs = self.manifest["inputs"].items()
        self.manifest["inputs"] = {source: entry for source, entry in inputs if entry["shard"] is None or entry["shard"] in there}


class _Unbuffered(io.FileIO):
    """A file to which a write is whole or fails: nothing that a full disk refused waits to be written, so it can still be cut off."""

    def write(self, data: Any) -> int:
        left = memoryview(data)
        while left:
            left = left[super().write(left) :]
        return len(data)


@contextmanager
def _new_shard(path: Path) -> Iterator[tuple[io.FileIO, tarfile.TarFile]]:
    with atomic_path(path) as temporary, _Unbuffered(temporary, "w") as file, tarfile.open(fileobj=file, mode="w") as tar:
        yield file, tar


def _encoded(content: np.ndarray | dict[str, Any]) -> bytes:
    if isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False).encode()
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=False)
    return buffer.getvalue()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
