"""Piper: neural voices that run on a CPU; the voice, FILE.onnx and FILE.onnx.json, is downloaded by whoever wants it.

The program loads the voice for every text: a second or so on a small device before the first sentence.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.tts.pcm import samples
from flashlips_edge.tts.program import Program

NAME = "piper"
RATES_HZ = (8_000, 96_000)


class PiperVoice:
    """A voice of Piper, by its .onnx file. Its program is `piper` of either release: pip's piper-tts or the older binary."""

    def __init__(self, model: Path, said_by: str):
        path = shutil.which(NAME)
        if path is None:
            raise UserError(f"{said_by}: {NAME} is not installed: pip install piper-tts")
        if not model.is_file():
            raise UserError(f"{said_by}: there is no such voice file; python3 -m piper.download_voices fetches voices")
        self._rate_hz = _rate_hz(model.with_name(f"{model.name}.json"), said_by)
        self._program = Program([path, "--model", str(model.absolute()), "--output-raw"], said_by)

    def say(self, text: str) -> Iterator[tuple[np.ndarray, int]]:
        return ((block, self._rate_hz) for block in samples(self._program.output(text)))

    def stop(self) -> None:
        self._program.stop()


def _rate_hz(config: Path, said_by: str) -> int:
    try:
        rate_hz = int(json.loads(config.read_text(encoding="utf-8"))["audio"]["sample_rate"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        rate_hz = 0
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise UserError(f"{said_by}: {config.name} must lie beside it and name the audio's sample_rate; download it with the voice")
    return rate_hz
