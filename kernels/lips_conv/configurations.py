"""Block sizes of lips_conv, the same on every chip. Chosen without a GPU, from what kernels.aot reports for sm_87 and sm_90 of nine
candidates at preset paper: these keep four programs on an SM and spill nothing; on a GPU, `make bench-kernels` has the last word."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Blocks:
    """Positions and output channels of a program's tile, input channels of one step of its sum; warps and pipeline stages."""

    positions: int
    out: int
    channels: int
    warps: int
    stages: int


def choose_blocks(batch: int, positions: int, out_channels: int, element_size: int) -> Blocks:
    """Fewer than 64 large tiles would leave most of a chip idle: then they are small. float32 has no tensor cores here, and its sums
    spill in larger steps."""
    small = batch * positions * out_channels < 64 * (64 * 64)
    if element_size == 4:
        return Blocks(32 if small else 64, 32, 16, 4, 2)
    return Blocks(32, 32, 64, 4, 3) if small else Blocks(64, 64, 32, 4, 4)
