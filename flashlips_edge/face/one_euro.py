"""The One-Euro filter (Casiez, Roussel, Vogel, CHI 2012): still when the signal is still, quick when it moves."""

from __future__ import annotations

import math

import numpy as np


class OneEuro:
    """Low-pass filter whose cut-off rises with speed: ``cutoff = min_cutoff_hz + beta * |derivative|``."""

    def __init__(self, min_cutoff_hz: float = 0.8, beta: float = 0.05, derivative_cutoff_hz: float = 1.0) -> None:
        self._min_cutoff_hz, self._beta, self._derivative_cutoff_hz = min_cutoff_hz, beta, derivative_cutoff_hz
        self._value: np.ndarray | None = None
        self._derivative: np.ndarray | None = None

    def __call__(self, value: np.ndarray, elapsed_s: float) -> np.ndarray:
        """Filtered value [N] of a measurement [N] taken ``elapsed_s`` seconds after the one before."""
        if self._value is None or self._derivative is None or elapsed_s <= 0:
            self._value, self._derivative = value.astype(np.float64), np.zeros(value.shape)
            return self._value
        derivative = (value - self._value) / elapsed_s
        blend = _blend(np.full(value.shape, self._derivative_cutoff_hz), elapsed_s)
        self._derivative = blend * derivative + (1 - blend) * self._derivative
        blend = _blend(self._min_cutoff_hz + self._beta * np.abs(self._derivative), elapsed_s)
        self._value = blend * value + (1 - blend) * self._value
        return self._value


def _blend(cutoff_hz: np.ndarray, elapsed_s: float) -> np.ndarray:
    return 1.0 / (1.0 + 1.0 / (2 * math.pi * cutoff_hz * elapsed_s))
