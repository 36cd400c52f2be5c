"""espeak-ng: small, instant, a hundred languages, and sounds like a machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.tts.pcm import samples
from flashlips_edge.tts.program import Program

NAME = "espeak-ng"
HEADER_BYTES = 44  # of the WAV that it writes to a pipe, whose length it does not know yet
CHECK_S = 10


class EspeakVoice:
    """One of espeak-ng's voices, by its language or name: en-gb, de, mb-de2."""

    def __init__(self, voice: str, said_by: str):
        path = shutil.which(NAME)
        if path is None:
            raise UserError(f"{said_by}: {NAME} is not installed: sudo apt-get install {NAME}")
        try:
            checked = subprocess.run([path, f"-v{voice}", "-q", "--stdin"], input=b"", capture_output=True, timeout=CHECK_S)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            raise UserError(f"{said_by}: {path} does not answer; install {NAME} again") from None
        if checked.returncode != 0 or checked.stderr.strip():
            raise UserError(f"{said_by}: {NAME} has no voice {voice!r}; {NAME} --voices names them all")
        self._program = Program([path, f"-v{voice}", "-b1", "--stdin", "--stdout"], said_by)

    def say(self, text: str) -> Iterator[tuple[np.ndarray, int]]:
        return _without_header(self._program.output(text))

    def stop(self) -> None:
        self._program.stop()


def _without_header(pieces: Iterator[bytes]) -> Iterator[tuple[np.ndarray, int]]:
    header = b""
    for piece in pieces:
        header += piece
        if len(header) >= HEADER_BYTES:
            break
    if len(header) < HEADER_BYTES:
        return
    rate_hz = int.from_bytes(header[24:28], "little")

    def body() -> Iterator[bytes]:
        yield header[HEADER_BYTES:]
        yield from pieces

    for block in samples(body()):
        yield block, rate_hz
