"""Block sizes of attention_block, chosen by shape so that registers do not spill and shared memory fits the smallest chip."""

from __future__ import annotations

from typing import NamedTuple


class Blocks(NamedTuple):
    """What one program holds: rows (positions), columns (features, or keys), inner (the summed dimension); warps and stages."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int


def project_blocks(length: int, features: int, element_size: int) -> Blocks:
    """For a product of [length, K] with [features, K]. Short sequences get narrow tiles, so that more programs share the work."""
    rows = 64 if length > 32 else 32
    return Blocks(rows, 64 if features >= 256 else 32, 32 if element_size == 4 else 64, 4, 2 if element_size == 4 else 3)


def attend_blocks(head_size: int, element_size: int) -> Blocks:
    """For flash attention with heads of this size."""
    wide = head_size * element_size > 128
    return Blocks(64, 32 if wide else 64, head_size, 4, 2)
