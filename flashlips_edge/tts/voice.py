"""What speaks a text: the interface, and the voice that a word names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.tts.espeak import EspeakVoice
from flashlips_edge.tts.piper import PiperVoice

KINDS = "espeak:LANGUAGE, such as espeak:en-gb, or piper:FILE.onnx"


class Voice(Protocol):
    """Any thread may call anything; texts that are said at the same time are said each for itself."""

    def say(self, text: str) -> Iterator[tuple[np.ndarray, int]]:
        """Pieces of speech as they are made: int16 [n], mono, and their rate in Hz. Raises UserError if the program fails."""

    def stop(self) -> None:
        """Ends at once all that `say` was asked for before; what it gave cannot be taken back. The next `say` speaks again."""


def open_voice(spec: str, argument: str = "--voice") -> Voice:
    """The voice that ``spec`` names: espeak:LANGUAGE or piper:FILE.onnx.

    Raises:
        UserError: an unknown kind, or a program or voice that is not installed: what to install.
    """
    kind, _, name = spec.partition(":")
    if kind == "espeak" and name:
        return EspeakVoice(name, f"{argument} {spec}")
    if kind == "piper" and name:
        return PiperVoice(Path(name), f"{argument} {spec}")
    raise UserError(f"{argument} {spec}: give {KINDS}")
