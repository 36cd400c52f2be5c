"""Sound as a caller gives it, made into what the lines of a session work on."""

from __future__ import annotations

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.media.downmix import downmix

RATES_HZ = (8_000, 192_000)
MAX_CHANNELS = 8


def mono(pcm: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """float32 [n] in -1 to 1 of int16 or float PCM [n] or [n, channels]; what is not a number becomes silence.

    Where channels cancel out in a whole piece, its loudest one."""
    if not RATES_HZ[0] <= sample_rate_hz <= RATES_HZ[1]:
        raise UserError(f"push_audio: sample_rate_hz {sample_rate_hz} is out of range: {RATES_HZ[0]} to {RATES_HZ[1]}")
    if isinstance(pcm, (bytes, bytearray, memoryview)):
        raise UserError("push_audio: pcm is bytes; give an array, as of numpy.frombuffer(pcm, numpy.int16)")
    samples = np.asarray(pcm)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHANNELS):
        raise UserError(f"push_audio: pcm has shape {list(samples.shape)}; give [n] or [n, channels], {MAX_CHANNELS} channels at most")
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768
    elif samples.dtype in (np.float32, np.float64):
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0).clip(-1.0, 1.0).astype(np.float32)
    else:
        raise UserError(f"push_audio: pcm is {samples.dtype}; give int16, or float32 in -1 to 1")
    return downmix(samples) if samples.ndim == 2 else samples
