"""The same words from another throat, in another room: what the waveform goes through, and what its log-mel goes through."""

from __future__ import annotations

import numpy as np
import soxr

from flashlips_edge.speech.features import SAMPLE_RATE_HZ

SPEED = 0.16  # deviation of the logarithm; pitch, formants and tempo move together, as from a large throat to a small one
ROOM_SHARE, NOISE_SHARE = 0.35, 0.6  # of the windows
LEVEL_DB = (-18.0, 8.0)
QUIET = 1e-4  # of full scale: noise is laid over this much at least
NEPERS = 9.2  # of power in one unit of a log-mel, which is 4 bel


def any_speed(generator: np.random.Generator) -> float:
    """How much faster than recorded a window is to run."""
    return float(np.exp(np.clip(generator.normal(0, SPEED), -0.3, 0.3)))


def faster(waveform: np.ndarray, samples: int) -> np.ndarray:
    """float32 [samples]: all of a waveform [N], as if played N / samples times as fast."""
    if len(waveform) == samples:
        return waveform
    result = soxr.resample(waveform, len(waveform), samples, quality="LQ")[:samples]
    return np.pad(result, (0, samples - len(result)))


def another_room(waveform: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A waveform float32 [N] at 16 kHz with another level, often with coloured noise, sometimes with a room's echo."""
    result = waveform
    if generator.random() < ROOM_SHARE:
        result = echo(result, generator.uniform(0.1, 0.5), generator.uniform(0.1, 0.8), generator)
    result = result * 10 ** (generator.uniform(*LEVEL_DB) / 20)
    if generator.random() < NOISE_SHARE:
        level = max(float(np.sqrt(np.square(result).mean())), QUIET) * 10 ** (-generator.uniform(3, 40) / 20)
        result = result + level * coloured(len(result), generator.uniform(0, 1.2), generator)
    return np.clip(result, -1, 1).astype(np.float32)


def echo(waveform: np.ndarray, seconds: float, strength: float, generator: np.random.Generator) -> np.ndarray:
    """A waveform [N] and, ``strength`` as loud, its echoes, which fall by 60 dB in ``seconds``."""
    time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    room = generator.standard_normal(len(time_s)) * 10 ** (-3 * time_s / seconds)
    room *= strength / np.sqrt(np.square(room).sum())
    room[0] = 1
    size = 1 << (len(waveform) + len(room) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(room, size), size)[: len(waveform)]


def coloured(samples: int, slope: float, generator: np.random.Generator) -> np.ndarray:
    """Noise [samples] of deviation 1 whose amplitude falls as frequency ** -slope: 0 is white, 1 brown."""
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 50 * samples / SAMPLE_RATE_HZ) ** -slope
    noise = np.fft.irfft(spectrum, samples)
    return noise / noise.std()


def another_throat(mel: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A log-mel float32 [4T, bands] of another throat and microphone: shifted and stretched bands, tilt, level, noise, a gap."""
    bands = np.arange(mel.shape[1])
    source = np.clip(bands * generator.normal(1, 0.05) + generator.normal(0, 1.5), 0, mel.shape[1] - 1)
    low = np.floor(source).astype(int)
    high = np.minimum(low + 1, mel.shape[1] - 1)
    share = (source - low).astype(np.float32)
    result = mel[:, low] * (1 - share) + mel[:, high] * share
    tilt = np.linspace(-1, 1, len(bands)) * generator.normal(0, 0.06)
    result = result + generator.normal(0, 0.12) + tilt
    if generator.random() < 0.3:
        floor = generator.uniform(-1.0, -0.1) + generator.normal(0, 0.06, result.shape)
        result = np.logaddexp(NEPERS * result, NEPERS * floor) / NEPERS  # powers add
    if generator.random() < 0.3:
        start = generator.integers(0, len(bands) - 10)
        result[:, start : start + generator.integers(3, 10)] = result.mean()
    return np.maximum(result, -1.0).astype(np.float32)
