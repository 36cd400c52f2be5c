"""The kernels of paste_back that see the crops only: how far each pixel is new, so that the old one's detail must go."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def change_kernel(crop, edited, amount, plane, BLOCK: tl.constexpr):
    """crop, edited [B, 3, S, S] -> amount float32 [B, S, S]: the largest change of a channel, 0..255. Programs: blocks of a plane x B."""
    b = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < plane
    largest = tl.zeros([BLOCK], tl.float32)
    for channel in tl.static_range(3):
        at = (b * 3 + channel) * plane + pixel
        new = tl.clamp(tl.load(edited + at, mask, 0.0).to(tl.float32), 0.0, 1.0)
        largest = tl.maximum(largest, tl.abs(new - tl.load(crop + at, mask, 0.0).to(tl.float32)))
    tl.store(amount + b * plane + pixel, largest * 255.0, mask)


@triton.jit
def blur_kernel(source, out, taps, feather, size, low, high, REACH: tl.constexpr, DOWN: tl.constexpr, BLOCK: tl.constexpr):
    """source -> out float32 [B, S, S], blurred along rows, or with DOWN along columns; borders mirror without repeating.

    With DOWN the result is what becomes of it: feather, times 0 at low grey levels of change and below to 1 at high and above.
    Programs: blocks of a plane x B.
    """
    b = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < size * size
    source += b * size * size
    column, row = pixel % size, pixel // size
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(2 * REACH + 1):
        along = tl.abs((row if DOWN else column) + i - REACH)
        along = size - 1 - tl.abs(size - 1 - along)
        at = along * size + column if DOWN else row * size + along
        total += tl.load(taps + i) * tl.load(source + at, mask, 0.0)
    if DOWN:
        total = tl.clamp((total - low) / (high - low), 0.0, 1.0) * tl.load(feather + pixel, mask, 0.0)
    tl.store(out + b * size * size + pixel, total, mask)
