"""A file of MP4 boxes that can be read at any moment while it grows."""

import os
import struct
from pathlib import Path


class GrowingFile:
    """A new file of MP4 boxes, to which whole ones are added in such a way that it can be read at any moment.

    A box that breaks off makes players refuse all of the file, but for a `free` box: so what is added counts as one until all of it
    is there, and then gets its true head.
    """

    def __init__(self, path: Path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._pending = bytearray()
        self._size = 0

    def write(self, data: bytes) -> int:
        """Called by FFmpeg."""
        self._pending += data
        return len(data)

    def commit(self) -> None:
        """Add what was written. If that fails the file is as it was."""
        if not self._pending:
            return
        data, self._pending = bytes(self._pending), bytearray()
        try:
            self._put(struct.pack(">I4s", len(data), b"free") + data[8:], self._size)
            self._put(data[:8], self._size)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def sync(self) -> None:
        """Add what was written, and wait until it is on the disk."""
        self.commit()
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _put(self, data: bytes, position: int) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, position)
            data, position = data[written:], position + written
