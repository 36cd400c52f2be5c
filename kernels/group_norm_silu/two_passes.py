"""GroupNorm + SiLU where a group is too large for one program's registers.

`group_statistics` reads it in chunks and leaves each chunk's mean and sum of squares about it; `group_apply` merges them (Chan et al.
1979) and normalises. It walks backwards, so that what was read last is still in the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.group_norm_silu.tile import load_affine, load_sum, tile_offsets
from kernels.precision import narrow


@triton.jit
def group_statistics(
    x, residual, total, partial, hw, span,
    GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Grid (chunks, B * groups). A chunk is ``span`` positions; partial [B * groups, chunks, 2] float32: mean, squares about it."""
    chunk, program = tl.program_id(0), tl.program_id(1)
    b, group = program // GROUPS, program % GROUPS
    k = tl.arange(0, BLOCK_C)
    c = group * GROUP_CHANNELS + k
    count, mean, squares = 0.0, 0.0, 0.0
    for start in range(chunk * span, tl.minimum(chunk * span + span, hw), BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (k < GROUP_CHANNELS)[:, None] & (p < hw)[None, :]
        offsets = tile_offsets(b, c, p, hw, GROUPS, GROUP_CHANNELS, CHANNELS_LAST)
        value = load_sum(x, residual, total, offsets, mask, ADD)
        tile_count = 1.0 * tl.minimum(hw - start, BLOCK_P) * GROUP_CHANNELS
        tile_mean = tl.sum(value) / tile_count
        centred = tl.where(mask, value - tile_mean, 0.0)
        away = tile_mean - mean
        merged = count + tile_count
        squares += tl.sum(centred * centred) + away * away * (count * tile_count / merged)
        mean += away * (tile_count / merged)
        count = merged
    out = partial + (program * tl.num_programs(0) + chunk) * 2
    tl.store(out, mean)
    tl.store(out + 1, squares)


@triton.jit
def group_apply(
    x, weight, bias, scale, shift, y, partial, mean_out, rstd_out, hw, span, chunks, stride_scale, stride_shift,
    EPS: tl.constexpr, GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr, CHANNELS_LAST: tl.constexpr, MODULATED: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of positions, B * groups). What `group_norm_silu_one_pass` gives, from the partial statistics."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    program = tl.num_programs(1) - 1 - tl.program_id(1)
    b, group = program // GROUPS, program % GROUPS
    i = tl.arange(0, BLOCK_CHUNKS)
    counts = tl.where(i < chunks, tl.minimum(tl.maximum(hw - i * span, 0), span) * GROUP_CHANNELS, 0).to(tl.float32)
    means = tl.load(partial + (program * chunks + i) * 2, i < chunks, 0.0)
    squares = tl.load(partial + (program * chunks + i) * 2 + 1, i < chunks, 0.0)
    count = 1.0 * hw * GROUP_CHANNELS
    mean = tl.sum(means * counts) / count
    rstd = 1.0 / tl.sqrt(tl.sum(squares + (means - mean) * (means - mean) * counts) / count + EPS)
    if tile == 0:
        tl.store(mean_out + program, mean)
        tl.store(rstd_out + program, rstd)
    k, p = tl.arange(0, BLOCK_C), tile * BLOCK_P + tl.arange(0, BLOCK_P)
    c = group * GROUP_CHANNELS + k
    mask = (k < GROUP_CHANNELS)[:, None] & (p < hw)[None, :]
    offsets = tile_offsets(b, c, p, hw, GROUPS, GROUP_CHANNELS, CHANNELS_LAST)
    value = tl.load(x + offsets, mask, 0.0).to(tl.float32)
    factor, addend = load_affine(weight, bias, scale, shift, b, c, k < GROUP_CHANNELS, stride_scale, stride_shift, MODULATED)
    modulated = (value - mean) * (rstd * factor)[:, None] + addend[:, None]
    tl.store(y + offsets, narrow(modulated * tl.sigmoid(modulated), y.dtype.element_ty), mask)
