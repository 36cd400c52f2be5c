"""What the forward and backward kernels share: how rows are cut, and their normalisation."""

from __future__ import annotations

import triton
import triton.language as tl

TILE = 2048  # elements of a program's rows, if more than one fits


def choose_rows(width: int) -> tuple[int, int, int]:
    """Columns and rows of a program's tile, and its warps: 16 elements to a thread."""
    block_w = triton.next_power_of_2(width)
    block_rows = max(1, TILE // block_w)
    return block_w, block_rows, max(1, min(16, block_w * block_rows // 512))


@triton.jit
def normalise(value, mask, EPS: tl.constexpr, WIDTH: tl.constexpr, CENTRE: tl.constexpr):
    """Rows over their standard deviation, about their mean if CENTRE: [rows, columns], and 1 / deviation [rows, 1]."""
    if CENTRE:
        value = tl.where(mask, value - tl.sum(value, 1, keep_dims=True) / WIDTH, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(value * value, 1, keep_dims=True) / WIDTH + EPS)
    return value * rstd, rstd
