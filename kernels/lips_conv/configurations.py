"""Block sizes of lips_conv."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Blocks:
    """Positions and output channels of a program's tile, input channels of one step of its sum."""

    positions: int
    out: int
    channels: int
    warps: int
    stages: int


def choose_blocks(positions: int, out_channels: int, element_size: int) -> Blocks:
    """A small map gets small tiles, so that its programs fill the chip."""
    small = positions * out_channels < 64 * 64 * 64
    return Blocks(32 if small else 64, 32 if small else 64, 32 if element_size == 4 else 64, 4, 2 if element_size == 4 else 3)
