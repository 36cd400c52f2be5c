"""The lips that can be asked for, and the curves they give."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.training.synthetic_head.identity import Identity

LOW = {"width": -1.0}
GAP = 0.36  # inner opening in face units at jaw = 1


@dataclass(frozen=True)
class Lips:
    """True lips parameters.

    jaw: opening, 0 closed to 1 wide; width: -1 drawn in to 1 spread; round: 0..1 protruded; upper_teeth, lower_teeth: how much of the rows
    shows; tongue: 0 lying to 1 at the upper teeth; press: 1 presses the lips shut whatever the jaw (p, b, m); tuck: 1 puts the lower lip
    to the upper teeth (f, v).

    Raises:
        UserError: a value outside its range.
    """

    jaw: float = 0.0
    width: float = 0.0
    round: float = 0.0
    upper_teeth: float = 0.5
    lower_teeth: float = 0.2
    tongue: float = 0.1
    press: float = 0.0
    tuck: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, low = getattr(self, field.name), LOW.get(field.name, 0.0)
            if not isinstance(value, (int, float, np.number)) or not low <= value <= 1:
                raise UserError(f"lips {field.name} is {value!r}; it must be a number from {low:g} to 1")

    def vector(self) -> np.ndarray:
        """jaw, width, round, upper_teeth, lower_teeth, tongue as float32 [6]; press and tuck are left out."""
        return np.float32([self.jaw, self.width, self.round, self.upper_teeth, self.lower_teeth, self.tongue])


class Mouth(NamedTuple):
    """Where the lips lie, in face units. ``half_width`` from the middle to a corner; the heights are at the middle line."""

    half_width: float
    gap: float  # inner lip to inner lip
    chin_drop: float
    corner_lift: float
    upper_thickness: float
    lower_thickness: float
    upper_lift: float
    roundness: float
    rest_half_width: float
    middle_y: float


def shape(identity: Identity, lips: Lips) -> Mouth:
    """The mouth's measures for these lips."""
    closed = (1 - lips.press) * (1 - 0.93 * lips.tuck)
    gap = GAP * lips.jaw * closed
    half_width = identity.mouth_width * (1 + 0.20 * lips.width * (1 - lips.round) - 0.40 * lips.round - 0.07 * lips.jaw)
    thick = (1 + 0.22 * lips.round - 0.12 * max(lips.width, 0) - 0.14 * lips.jaw) * (1 - 0.45 * lips.press)
    return Mouth(
        half_width=half_width,
        gap=gap,
        chin_drop=0.62 * GAP * lips.jaw * (0.4 + 0.6 * closed) + 0.012 * lips.tuck,
        corner_lift=identity.mouth_curve + 0.050 * max(lips.width, 0.0) - 0.02 * lips.jaw,
        upper_thickness=identity.upper_lip * thick * (1 - 0.1 * lips.upper_teeth * lips.jaw),
        lower_thickness=identity.lower_lip * thick * (1 - 0.35 * lips.tuck),
        upper_lift=0.22 * gap + 0.02 * lips.tuck + 0.015 * lips.upper_teeth * min(1.0, 4 * gap),
        roundness=lips.round,
        rest_half_width=identity.mouth_width,
        middle_y=identity.mouth_y,
    )


class Curves(NamedTuple):
    """Lip edges as y over the columns x, and ``t``: -1 and 1 at the corners; all float32 [W]."""

    t: np.ndarray
    upper_outer: np.ndarray
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower_outer: np.ndarray


def curves(mouth: Mouth, x: np.ndarray) -> Curves:
    """The four edges of the lips over columns ``x`` [W] in face units; they meet at the corners."""
    t = np.clip(x / mouth.half_width, -1, 1)
    fall = 1 - t * t
    a = np.abs(t)
    opening = fall ** (0.85 - 0.32 * mouth.roundness)  # rounder lips open as an ellipse
    line = mouth.middle_y - mouth.corner_lift * t * t + 0.012 * (1 - 0.7 * mouth.roundness) * (np.exp(-((t / 0.16) ** 2)) - fall * 0.6)
    upper_inner = line - mouth.upper_lift * opening
    lower_inner = upper_inner + mouth.gap * opening
    bow = 1 + 0.16 * np.exp(-(((a - 0.24) / 0.17) ** 2)) - 0.16 * np.exp(-((t / 0.13) ** 2)) * (1 - 0.6 * mouth.roundness)
    upper_outer = upper_inner - mouth.upper_thickness * (1 - a**1.35) ** 0.92 * bow
    lower_outer = lower_inner + mouth.lower_thickness * fall**0.72 * (1 - 0.10 * a)
    return Curves(t, upper_outer, upper_inner, lower_inner, lower_outer)
