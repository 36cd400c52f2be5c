"""From phonemes to lips: targets per sound, blended by dominance (Cohen and Massaro 1993, "Modeling coarticulation in synthetic visual
speech"), with closures that really close."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.training.synthetic_head.fields import smoothstep
from flashlips_edge.training.synthetic_head.lips import Lips

PAUSE = "_"


class Target(NamedTuple):
    """Where the lips go for a sound, and how strongly it pulls against its neighbours."""

    jaw: float
    width: float
    round: float
    upper_teeth: float
    lower_teeth: float
    tongue: float
    dominance: float = 1.0


_VOWELS = {
    "a": Target(0.72, 0.15, 0.0, 0.45, 0.15, 0.10), "ɑ": Target(0.72, -0.05, 0.05, 0.35, 0.10, 0.05), "ɐ": Target(0.55, 0.05, 0.0, 0.4, 0.15, 0.1),
    "æ": Target(0.68, 0.35, 0.0, 0.55, 0.20, 0.15), "ʌ": Target(0.52, 0.05, 0.0, 0.40, 0.15, 0.10), "ə": Target(0.30, 0.05, 0.05, 0.45, 0.20, 0.20, 0.6),
    "ɜ": Target(0.36, 0.00, 0.20, 0.45, 0.25, 0.25), "ɚ": Target(0.30, 0.0, 0.25, 0.45, 0.25, 0.3), "e": Target(0.42, 0.50, 0.0, 0.60, 0.30, 0.25),
    "ɛ": Target(0.48, 0.40, 0.0, 0.55, 0.25, 0.20), "ɪ": Target(0.28, 0.45, 0.0, 0.60, 0.35, 0.30), "i": Target(0.22, 0.85, 0.0, 0.75, 0.45, 0.35),
    "ɨ": Target(0.22, 0.3, 0.0, 0.6, 0.4, 0.3), "ɯ": Target(0.2, 0.3, 0.0, 0.6, 0.4, 0.3), "ɒ": Target(0.55, -0.20, 0.40, 0.25, 0.10, 0.05),
    "ɔ": Target(0.46, -0.30, 0.65, 0.15, 0.10, 0.05), "o": Target(0.38, -0.30, 0.75, 0.15, 0.10, 0.10), "ʊ": Target(0.25, -0.30, 0.65, 0.25, 0.15, 0.15),
    "u": Target(0.17, -0.40, 0.95, 0.15, 0.10, 0.10), "y": Target(0.18, -0.3, 0.9, 0.2, 0.15, 0.3), "ʏ": Target(0.22, -0.25, 0.75, 0.25, 0.15, 0.25),
    "ø": Target(0.30, -0.25, 0.75, 0.2, 0.15, 0.25), "œ": Target(0.38, -0.15, 0.6, 0.3, 0.15, 0.2), "ᵻ": Target(0.26, 0.35, 0.0, 0.55, 0.3, 0.3, 0.6),
}  # fmt: skip
_LABIAL = Target(0.10, 0.0, 0.05, 0.4, 0.2, 0.2, 0.9)
_LABIODENTAL = Target(0.16, 0.10, 0.05, 0.55, 0.0, 0.1, 0.9)
_ALVEOLAR = Target(0.18, 0.20, 0.0, 0.65, 0.40, 0.75, 0.45)
_SIBILANT = Target(0.12, 0.35, 0.0, 0.80, 0.70, 0.30, 0.9)
_POSTALVEOLAR = Target(0.16, -0.15, 0.60, 0.75, 0.65, 0.30, 1.0)
_DENTAL = Target(0.20, 0.15, 0.0, 0.50, 0.20, 0.95, 0.8)
_VELAR = Target(0.24, 0.10, 0.0, 0.50, 0.25, 0.40, 0.25)
_CONSONANTS = {
    **dict.fromkeys("pbmɓ", _LABIAL), **dict.fromkeys("fvɱ", _LABIODENTAL), **dict.fromkeys("tdnɾɳʈɖɲ", _ALVEOLAR), **dict.fromkeys("szɕʑ", _SIBILANT),
    **dict.fromkeys("ʃʒʂʐ", _POSTALVEOLAR), **dict.fromkeys("θð", _DENTAL), **dict.fromkeys("kɡgŋxɣqχʁçʀ", _VELAR),
    "l": Target(0.28, 0.10, 0.0, 0.50, 0.20, 0.85, 0.6), "ɫ": Target(0.28, 0.0, 0.1, 0.5, 0.2, 0.7, 0.5), "ɹ": Target(0.20, -0.1, 0.50, 0.45, 0.30, 0.40, 0.7),
    "r": Target(0.22, 0.0, 0.20, 0.5, 0.3, 0.6, 0.5), "w": Target(0.10, -0.4, 0.98, 0.1, 0.1, 0.1, 1.2), "ʋ": _LABIODENTAL,
    "j": Target(0.20, 0.50, 0.0, 0.65, 0.40, 0.40, 0.6), "h": Target(0.30, 0.1, 0.0, 0.45, 0.2, 0.2, 0.08), "ʔ": Target(0.25, 0.0, 0.0, 0.4, 0.2, 0.2, 0.05),
}  # fmt: skip
TARGETS = {**_VOWELS, **_CONSONANTS}
BILABIALS, LABIODENTALS = "pbmɓ", "fvɱʋ"
_UNKNOWN = Target(0.22, 0.1, 0.0, 0.5, 0.3, 0.3, 0.2)
_REST = Target(0.0, 0.0, 0.0, 0.45, 0.2, 0.1, 0.5)


def _plateau(time_s: np.ndarray, start_s: float, end_s: float, ramp_s: float) -> np.ndarray:
    """1 from ``start_s`` to ``end_s``, falling smoothly to 0 over ``ramp_s`` on both sides."""
    return smoothstep(start_s - ramp_s, start_s, time_s) * smoothstep(end_s + ramp_s, end_s, time_s)


def _parts(phonemes: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Single IPA letters: diphthongs and affricates split in time, length marks dropped, pauses in a row joined."""
    parts: list[tuple[str, float, float]] = []
    for phoneme, start, end in phonemes:
        if not (math.isfinite(start) and math.isfinite(end) and 0 <= start <= end):
            raise UserError(f"phonemes hold {(phoneme, start, end)!r}; each must be (IPA, start, end) in seconds with 0 <= start <= end")
        letters = [c for c in phoneme if c in TARGETS] or [PAUSE if phoneme in (PAUSE, "") else "?"]
        if letters == [PAUSE] and parts and parts[-1][0] == PAUSE:
            parts[-1] = (PAUSE, parts[-1][1], end)
            continue
        step = (end - start) / len(letters)
        parts += [(letter, start + i * step, start + (i + 1) * step) for i, letter in enumerate(letters)]
    return parts


def lips_track(phonemes: Sequence[tuple[str, float, float]], rate_hz: float = 25.0) -> list[Lips]:
    """Lips that say ``phonemes``, (IPA, start_s, end_s) as ``speak`` gives them; step i shows the middle of its 1 / ``rate_hz`` seconds.

    p, b and m press the lips shut for at least one step, f and v tuck the lower lip, pauses of 80 ms or more close the mouth.

    Raises:
        UserError: no phonemes, times out of order, or ``rate_hz`` not positive.
    """
    if not rate_hz > 0:
        raise UserError(f"rate_hz is {rate_hz!r}; it must be above 0")
    parts = _parts(phonemes)
    if not parts:
        raise UserError("phonemes is empty; it must hold at least one (IPA, start, end)")
    steps = max(1, math.ceil(parts[-1][2] * rate_hz - 1e-6))
    time_s = (np.arange(steps) + 0.5) / rate_hz
    weights = np.full(steps, 1e-4)
    blend = weights[:, None] * np.array(_REST[:6])
    press, tuck, still = np.zeros(steps), np.zeros(steps), np.zeros(steps)
    for letter, start, end in parts:
        middle, length = (start + end) / 2, end - start
        target = _REST if letter == PAUSE else TARGETS.get(letter, _UNKNOWN)
        reach = 0.030 + 0.5 * length
        pull = target.dominance * np.exp(-((np.abs(time_s - middle) / reach) ** 1.6))
        weights += pull
        blend += pull[:, None] * np.array(target[:6])
        hold = max(0.4 * length, 0.5 / rate_hz + 1e-3)
        if letter in BILABIALS:
            press = np.maximum(press, _plateau(time_s, middle - hold, middle + hold, 0.035))
        elif letter in LABIODENTALS:
            tuck = np.maximum(tuck, _plateau(time_s, middle - hold, middle + hold, 0.035))
        elif letter == PAUSE and length >= 0.08:
            first, last = start <= 0, end >= parts[-1][2] - 1e-6
            still = np.maximum(still, _plateau(time_s, -1 if first else start + 0.05, 9e9 if last else end - 0.03, 0.07))
    values = blend / weights[:, None]
    values[:, 0] *= 1 - still
    values[:, 1:3] *= (1 - 0.8 * still)[:, None]
    values = np.clip(values, [0, -1, 0, 0, 0, 0], 1)
    rows = np.column_stack([values, press, tuck * (1 - press) * (1 - still)])
    return [Lips(*map(float, row)) for row in rows]
