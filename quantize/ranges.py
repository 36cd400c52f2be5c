"""The range of each tensor over the calibration set, by four rules: max, percentile, entropy, least square error.

Entropy is the rule of NVIDIA's calibrators: the clipped histogram whose Kullback-Leibler divergence from its own 128-level version
is least. Least square error takes the clip at which rounding and clipping together cost least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from flashlips_edge.errors import UserError
from quantize.graph import Feed, Probe

BINS = 2048
PERCENTILE = 99.99
LEVELS = 128  # of the entropy rule
SHARES = np.linspace(0.3, 1.0, 71)  # of the whole range, tried by the least square error
RULES = ("max", "percentile", "entropy", "square")


@dataclass
class Histogram:
    """Values of one tensor: counts int64 [BINS] between ``low`` and ``high``."""

    low: float
    high: float
    counts: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        step = (self.high - self.low) / BINS
        return self.low + step * (np.arange(BINS) + 0.5)


def collect(graph: str, model: onnx.ModelProto, names: list[str], feeds: list[Feed]) -> dict[str, Histogram]:
    """Histograms of the named tensors over all feeds. UserError for a NaN or an infinity, and for a tensor that is zero throughout."""
    probe = Probe(model, names)
    limits: dict[str, tuple[float, float]] = {}
    for feed in feeds:
        for name, array in probe.run(feed).items():
            if not np.isfinite(array).all():
                raise UserError(f"graph {graph}: the range of {name} holds {_worst(array)}; the weights or the calibration set are broken")
            low, high = limits.get(name, (0.0, 0.0))  # zero is in every range: padding is zero
            limits[name] = min(low, float(array.min())), max(high, float(array.max()))
    if empty := [name for name in names if limits[name] == (0.0, 0.0)]:
        raise UserError(f"graph {graph}: the range of {empty[0]} is zero, nothing comes through; the weights are broken or untrained")
    found = {name: Histogram(limits[name][0], limits[name][1], np.zeros(BINS, np.int64)) for name in names}
    for feed in feeds:
        for name, array in probe.run(feed).items():
            histogram = found[name]
            histogram.counts += np.histogram(array, BINS, (histogram.low, histogram.high))[0]
    return found


def choose(histogram: Histogram, rule: str, symmetric: bool) -> tuple[float, float]:
    """Lower and upper end of the range by one of RULES; equal in size where ``symmetric``."""
    low, high = histogram.low, histogram.high
    if rule == "max":
        pass
    elif rule == "percentile":
        low, high = _percentiles(histogram)
    else:
        cost: Callable[[Histogram, float, float, bool], float] = _divergence if rule == "entropy" else _square_error
        low, high = min(
            ((low * share, high * share) for share in SHARES[::-1]), key=lambda ends: cost(histogram, ends[0], ends[1], symmetric)
        )
    if symmetric:
        high = max(-low, high)
        low = -high
    return float(low), float(high)


def _percentiles(histogram: Histogram) -> tuple[float, float]:
    """Both tails cut alike; zero stays inside."""
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = (100 - PERCENTILE) / 100
    low = histogram.centres[np.searchsorted(below, tail)]
    high = histogram.centres[min(BINS - 1, np.searchsorted(below, 1 - tail))]
    return min(0.0, float(low)), max(0.0, float(high))


def _square_error(histogram: Histogram, low: float, high: float, symmetric: bool) -> float:
    """Mean square of what rounding to 8 bits between the ends costs, clipping counted."""
    if symmetric:
        high = max(-low, high)
        low = -high
    step = (high - low) / 255
    x = histogram.centres
    rounded = np.clip(np.round((x - low) / step), 0, 255) * step + low
    beyond = (x < low) | (x > high)
    error = np.where(beyond, (x - rounded) ** 2, step**2 / 12)  # a bin may be narrower than a step: use the mean inside
    return float((histogram.counts * error).sum())


def _divergence(histogram: Histogram, low: float, high: float, symmetric: bool) -> float:
    """Kullback-Leibler divergence of the clipped histogram from itself in LEVELS levels."""
    if symmetric:
        high = max(-low, high)
        low = -high
    x, counts = histogram.centres, histogram.counts.astype(np.float64)
    inside = (x >= low) & (x <= high)
    if inside.sum() < LEVELS:
        return float("inf")
    clipped = counts[inside].copy()
    clipped[0] += counts[x < low].sum()
    clipped[-1] += counts[x > high].sum()
    level = np.arange(len(clipped)) * LEVELS // len(clipped)
    full = counts[inside] > 0
    mass, cells = np.bincount(level, counts[inside], LEVELS), np.bincount(level, full, LEVELS)
    coarse = np.where(full, (mass / np.maximum(cells, 1))[level], 0)
    p, q = clipped / clipped.sum(), coarse / max(coarse.sum(), 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-9))).sum())


def _worst(array: np.ndarray) -> str:
    return "a NaN" if np.isnan(array).any() else "an infinity"
