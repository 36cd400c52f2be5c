"""Held-out speech, spoken as the run path speaks it: window after window from a closed mouth, recorded or live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flashlips_edge.models.layers import LIPS
from flashlips_edge.speech.features import SAMPLES_PER_STEP, log_mel
from flashlips_edge.talking.lips import SpeechToLips
from flashlips_edge.talking.mouth import mouth_of
from flashlips_edge.training.checkpoint import load_constants
from flashlips_edge.training.loop import on
from flashlips_edge.training.speech_tracks import Track, resting


@dataclass(frozen=True)
class Constants:
    """What lips.json says, for `talking.mouth`: float32 [12] each."""

    lips_opening: np.ndarray
    lips_closed: np.ndarray
    lips_spoken: np.ndarray

    @staticmethod
    def of(weights: Path) -> Constants:
        """Those of a folder of weights; older ones do not say how far mouths open. Raises UserError where there are none."""
        found = {"spoken": [0.0] * LIPS} | load_constants(weights)
        return Constants(*(np.float32(found[name]) for name in ("opening", "closed", "spoken")))


class Rehearsal:
    """Speech encoder and audio to lips as the run path's ``Networks`` has them; ``flow`` is the preset's audio_to_lips."""

    def __init__(self, speech_encoder: nn.Module, audio_to_lips: nn.Module, flow: dict[str, Any], hears_waveforms: bool = False) -> None:
        self._speech_encoder, self._audio_to_lips, self._hears_waveforms = speech_encoder, audio_to_lips, hears_waveforms
        self.window, self.previous, self._emotions = flow["window"], flow["previous"], flow["emotions"]

    def speech(self, waveform: np.ndarray) -> np.ndarray:
        """Speech float32 [T, D] of a waveform float32 [640 T]."""
        return _run(self._speech_encoder, waveform if self._hears_waveforms else log_mel(waveform))

    def audio_to_lips(self, speech: np.ndarray, reference_lips: np.ndarray, previous_lips: np.ndarray) -> np.ndarray:
        """The most likely lips float32 [window, 12]: zero noise, neutral emotion."""
        noise = np.zeros((self.window, previous_lips.shape[1]))
        return _run(self._audio_to_lips, noise, speech, np.zeros(self._emotions), reference_lips, previous_lips)


@torch.no_grad()
def _run(module: nn.Module, *inputs: np.ndarray) -> np.ndarray:
    """What a module gives for a batch of one."""
    return module(*(on(module, torch.from_numpy(np.float32(x))[None]) for x in inputs))[0].float().cpu().numpy()


def rehearse(
    networks: Rehearsal, tracks: list[Track], constants: Constants, new_steps: int | None = None, at_rest: bool = False
) -> dict[str, float]:
    """Correlation of the opening with the true one and its spread as a share of the true one's, means over tracks.

    Every track is spoken by its own face, as the run path knows it. ``new_steps`` as ``SpeechToLips`` has it: none for
    recorded speech, a chunk for live speech. ``at_rest``: the face was never seen with an open mouth, as an idle loop's.
    """
    correlations, gains, opening = [], [], constants.lips_opening
    for track in tracks:
        seen = resting(track.lips, opening) if at_rest else track.lips
        speaker = SpeechToLips(networks, *mouth_of(seen, constants), new_steps=new_steps)  # type: ignore[arg-type]
        pieces = np.split(track.waveform, np.arange(SAMPLES_PER_STEP, len(track.waveform), SAMPLES_PER_STEP))
        given = np.concatenate([*(speaker.push(piece) for piece in pieces), speaker.finish()]) @ opening
        truth = track.lips @ opening
        correlations.append(np.corrcoef(given, truth)[0, 1])
        gains.append(given.std() / truth.std())
    return {"opening_r": float(np.mean(correlations)), "opening_gain": float(np.mean(gains))}
