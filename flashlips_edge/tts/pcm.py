"""Bytes of a pipe as samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


def samples(pieces: Iterable[bytes]) -> Iterator[np.ndarray]:
    """int16 [n] of little-endian bytes that may be cut anywhere; half a sample at the end is dropped."""
    rest = b""
    for piece in pieces:
        data = rest + piece
        whole = len(data) // 2 * 2
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], "<i2")
