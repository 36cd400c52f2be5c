"""Silence by content: where nobody speaks, whatever the queue holds; steady noise is silence too."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from flashlips_edge.speech.features import MELS_PER_STEP, log_mel

SPEECH_BANDS = slice(8, 64)  # about 300 to 4500 Hz of the 80 mel bands
ABOVE_FLOOR = 0.9  # bel (log10 of power) above the surrounding noise floor
BELOW_LOUD = 3.0  # bel under the surrounding loud parts that are still speech
ABSOLUTE_FLOOR = -2.6  # bel of mel power, about -65 dBFS of speech
STEADY = 0.05  # bel: a level that varies less than this over 0.4 s is a machine, not a voice
SURROUNDING = 300  # feature frames, 3 s to either side
HOLD_STEPS = 2  # 80 ms that speech goes on being speech
FADE_STEPS = 3  # 120 ms from open to closed lips, and back
LEAD_STEPS = 5  # 200 ms: lips part before a word is heard
REACH_STEPS = SURROUNDING // MELS_PER_STEP + LEAD_STEPS + 1  # heard on either side of a step, at most, to judge its silence


def silence_weight(waveform: np.ndarray) -> np.ndarray:
    """Weight of silence float32 [T] of a mono waveform float32 [N] at 16 kHz: 0 speech, 1 silence, blended in 120 ms.

    The mouth is fully closed 200 ms after the last speech and starts to open 200 ms before the first.
    """
    speech = speech_steps(waveform)
    return Fade()(speech, len(speech))


def speech_steps(waveform: np.ndarray) -> np.ndarray:
    """Whether somebody speaks, bool [T], in each step of a mono waveform float32 [N] at 16 kHz."""
    mel = log_mel(waveform)
    if not len(mel):
        return np.zeros(0, bool)
    power = 10 ** (mel[:, SPEECH_BANDS].astype(np.float64) * 4 - 2)
    level = np.log10(power.mean(1))  # [4T]
    smooth = _windows(level, 2).mean(1)
    floor = np.maximum(np.percentile(_windows(smooth, SURROUNDING), 10, axis=1), ABSOLUTE_FLOOR - ABOVE_FLOOR)
    loud = np.percentile(_windows(smooth, SURROUNDING), 95, axis=1)
    lively = _windows(smooth, 20).std(1) > STEADY
    speech = (smooth > floor + ABOVE_FLOOR) & (smooth > loud - BELOW_LOUD) & (smooth > ABSOLUTE_FLOOR) & lively
    return speech.reshape(-1, MELS_PER_STEP).sum(1) >= 2


class Fade:
    """Weights of silence from steps of speech, piece by piece: what has begun in one piece goes on in the next."""

    def __init__(self) -> None:
        self._since = HOLD_STEPS + FADE_STEPS  # steps without speech; a clip starts with its mouth closed
        self._weight = 1.0

    def __call__(self, speech: np.ndarray, count: int) -> np.ndarray:
        """Weight float32 [count] of the first `count` steps of speech, bool [T]. The more steps follow them, the earlier it opens."""
        weights = np.empty(count, np.float32)
        for i in range(count):
            self._since = 0 if speech[i : i + 1 + LEAD_STEPS].any() else self._since + 1
            closing = min(max(self._since - HOLD_STEPS, 0) / FADE_STEPS, 1.0)
            weights[i] = self._weight = max(closing, self._weight - 1 / FADE_STEPS)
        return weights


def _windows(values: np.ndarray, radius: int) -> np.ndarray:
    """Every value's surroundings [N, 2*radius+1], mirrored at the ends, where one value repeated would outvote the others; radius at most
    the length."""
    radius = min(radius, len(values))
    return sliding_window_view(np.pad(values, radius, mode="symmetric"), 2 * radius + 1)
