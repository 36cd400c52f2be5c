"""Silence by content: where nobody speaks, whatever the queue holds; steady noise is silence too."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from flashlips_edge.speech.features import MELS_PER_STEP, log_mel

SPEECH_BANDS = slice(8, 64)  # about 300 to 4500 Hz of the 80 mel bands
ABOVE_FLOOR = 0.9  # bel (log10 of power) above the surrounding noise floor
BELOW_LOUD = 2.7  # bel under the surrounding loud parts that are still speech
ABSOLUTE_FLOOR = -2.6  # bel of mel power, about -65 dBFS of speech
STEADY = 0.05  # bel: a level that varies less than this over 0.4 s is a machine, not a voice
SURROUNDING = 300  # feature frames, 3 s to either side
HOLD_STEPS = 2  # 80 ms that speech goes on being speech
FADE_STEPS = 3  # 120 ms from open to closed lips


def silence_weight(waveform: np.ndarray) -> np.ndarray:
    """Weight of silence float32 [T] of a mono waveform float32 [N] at 16 kHz: 0 speech, 1 silence, blended in 120 ms.

    The mouth is fully closed 200 ms after the last speech and starts to open one step before the first.
    """
    mel = log_mel(waveform)
    if not len(mel):
        return np.zeros(0, np.float32)
    power = 10 ** (mel[:, SPEECH_BANDS].astype(np.float64) * 4 - 2)
    level = np.log10(power.mean(1))  # [4T]
    smooth = _windows(level, 2).mean(1)
    floor = np.maximum(np.percentile(_windows(smooth, SURROUNDING), 10, axis=1), ABSOLUTE_FLOOR - ABOVE_FLOOR)
    loud = np.percentile(_windows(smooth, SURROUNDING), 95, axis=1)
    lively = _windows(smooth, 20).std(1) > STEADY
    speech = (smooth > floor + ABOVE_FLOOR) & (smooth > loud - BELOW_LOUD) & (smooth > ABSOLUTE_FLOOR) & lively
    steps = speech.reshape(-1, MELS_PER_STEP).sum(1) >= 2  # [T]
    return _blend(steps)


def _blend(speech: np.ndarray) -> np.ndarray:
    """Hold, lead and fade: bool [T] to weight float32 [T]."""
    weight = np.empty(len(speech), np.float32)
    since = HOLD_STEPS + FADE_STEPS  # a clip starts with its mouth closed
    for i in range(len(speech)):
        soon = speech[i] or (i + 1 < len(speech) and speech[i + 1])
        since = 0 if soon else since + 1
        weight[i] = np.clip((since - HOLD_STEPS) / FADE_STEPS, 0, 1)
    return weight


def _windows(values: np.ndarray, radius: int) -> np.ndarray:
    """Every value's surroundings [N, 2*radius+1], edges repeated; radius at most the length."""
    radius = min(radius, len(values))
    return sliding_window_view(np.pad(values, radius, mode="edge"), 2 * radius + 1)
