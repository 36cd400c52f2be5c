"""Flash attention: a running maximum and sum per query, so that probabilities are never written (Dao et al. 2022, algorithm 1)."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.precision import dot, narrow

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attend_kernel(
    qkv, lengths, out, L, C, scale,
    SIZE: tl.constexpr, PADDED: tl.constexpr, RAGGED: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_KEYS: tl.constexpr,
):  # fmt: skip
    """qkv [B, L, 3 * C] -> out [B, L, C]. Programs: blocks of L x heads x B; heads are SIZE wide."""
    head = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    d = tl.arange(0, PADDED)
    qkv += b * L * 3 * C + head * SIZE
    known = d < SIZE
    query = tl.load(qkv + row[:, None] * 3 * C + d[None, :], (row < L)[:, None] & known[None, :], 0.0)
    last = L
    if RAGGED:
        last = tl.minimum(tl.load(lengths + b), L)
    largest = tl.full([BLOCK_L], float("-inf"), tl.float32)
    weight = tl.zeros([BLOCK_L], tl.float32)
    mixed = tl.zeros([BLOCK_L, PADDED], tl.float32)
    for start in range(0, last, BLOCK_KEYS):
        column = start + tl.arange(0, BLOCK_KEYS)
        seen = column < last
        key = tl.load(qkv + C + column[None, :] * 3 * C + d[:, None], seen[None, :] & known[:, None], 0.0)
        score = dot(query, key, tl.zeros([BLOCK_L, BLOCK_KEYS], tl.float32)) * (scale * LOG2_E)
        score = tl.where(seen[None, :], score, float("-inf"))
        larger = tl.maximum(largest, tl.max(score, 1))
        probability = tl.exp2(score - larger[:, None])
        fade = tl.exp2(largest - larger)
        weight = weight * fade + tl.sum(probability, 1)
        value = tl.load(qkv + 2 * C + column[:, None] * 3 * C + d[None, :], seen[:, None] & known[None, :], 0.0)
        mixed = dot(narrow(probability, value.dtype), value, mixed * fade[:, None])
        largest = larger
    mixed = mixed / weight[:, None]
    at = out + b * L * C + head * SIZE + row[:, None] * C + d[None, :]
    tl.store(at, narrow(mixed, out.dtype.element_ty), (row < L)[:, None] & known[None, :])
