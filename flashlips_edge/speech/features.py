"""Log-mel features in numpy: 16 kHz, 25 ms windows every 10 ms, 80 bands, four feature frames per lips step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SAMPLE_RATE_HZ = 16_000
STEP_RATE_HZ = 25  # lips vectors per second, whatever the video's frame rate
HOP = 160  # samples, 10 ms
WINDOW = 400  # samples, 25 ms
FFT = 512
N_MELS = 80
MELS_PER_STEP = SAMPLE_RATE_HZ // STEP_RATE_HZ // HOP  # 4
SAMPLES_PER_STEP = HOP * MELS_PER_STEP  # 640
FLOOR = 1e-6  # power floor, so that digital silence has a finite logarithm


def steps_of(samples: int) -> int:
    """Lips steps that cover ``samples`` samples at 16 kHz."""
    return -(-samples // SAMPLES_PER_STEP)


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """Log-mel power float32 [4*T, 80] of a mono waveform float32 [N] at 16 kHz in -1..1, T = ceil(N / 640).

    Feature frame ``i`` is centred on sample ``160 * i + 80``. Values are shifted and scaled to about -1..1.
    """
    frames = MELS_PER_STEP * steps_of(len(waveform))
    if frames == 0:
        return np.zeros((0, N_MELS), np.float32)
    lead = (WINDOW - HOP) // 2
    padded = np.zeros(frames * HOP + WINDOW, np.float32)
    padded[lead : lead + len(waveform)] = waveform
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: frames * HOP : HOP]  # [4T, WINDOW]
    power = np.abs(np.fft.rfft(windows * _hann(), FFT)) ** 2  # [4T, FFT/2+1]
    mel = np.log10(np.maximum(power @ _filters().T, FLOOR))
    return ((mel + 2.0) / 4.0).astype(np.float32)


@lru_cache(maxsize=1)
def _hann() -> np.ndarray:
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    """Triangular filters float32 [80, FFT/2+1], equally spaced on the mel scale from 60 to 7600 Hz."""
    low, high = _mel(60.0), _mel(7600.0)
    edges = 700 * (10 ** (np.linspace(low, high, N_MELS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE_HZ)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


def _mel(frequency_hz: float) -> float:
    return float(2595 * np.log10(1 + frequency_hz / 700))
