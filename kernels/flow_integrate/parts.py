"""What one program does in each phase of an integration: its share of tiles or rows, and the wait for the others."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.precision import dot, narrow

EPS = tl.constexpr(1e-5)  # of every layer norm
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def wait_for_all(counter, arrivals):
    """Until the counter, which each program raises by one, reaches `arrivals`; what the programs wrote before is then seen by all."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release")
    while tl.atomic_add(counter, 0, sem="acquire") < arrivals:
        pass
    tl.debug_barrier()


@triton.jit
def linear(
    x, weight, bias, out, rows, depth, features, gelu, program, programs,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """out [rows, features] = x [rows, depth] @ weight^T + bias, through GELU or not."""
    across = tl.cdiv(features, BLOCK_F)
    for tile in range(program, across * tl.cdiv(rows, BLOCK_R), programs):
        row = tile // across * BLOCK_R + tl.arange(0, BLOCK_R)
        feature = tile % across * BLOCK_F + tl.arange(0, BLOCK_F)
        total = tl.zeros([BLOCK_R, BLOCK_F], tl.float32)
        for start in range(0, depth, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            value = tl.load(x + row[:, None] * depth + k[None, :], (row < rows)[:, None] & (k < depth)[None, :], 0.0)
            weights = tl.load(weight + feature[None, :] * depth + k[:, None], (feature < features)[None, :] & (k < depth)[:, None], 0.0)
            total = dot(value, weights, total)
        total += tl.load(bias + feature, feature < features, 0.0).to(tl.float32)[None, :]
        if gelu:
            total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
        inside = (row < rows)[:, None] & (feature < features)[None, :]
        tl.store(out + row[:, None] * features + feature[None, :], narrow(total, out.dtype.element_ty), inside)


@triton.jit
def attend(
    qkv, out, batch, L, program, programs, WIDTH: tl.constexpr, HEADS: tl.constexpr, PADDED: tl.constexpr, KEYS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """qkv [batch, L, 3 * WIDTH] -> out [batch, L, WIDTH]: all L keys fit in one block of KEYS."""
    SIZE: tl.constexpr = WIDTH // HEADS
    blocks = tl.cdiv(L, BLOCK_Q)
    d = tl.arange(0, PADDED)
    key_row = tl.arange(0, KEYS)
    for tile in tl.range(program, batch * HEADS * blocks, programs, num_stages=1):  # too few turns to load ahead for
        head = tile // blocks % HEADS
        sequence = tile // blocks // HEADS * L
        row = tile % blocks * BLOCK_Q + tl.arange(0, BLOCK_Q)
        base = qkv + sequence * 3 * WIDTH + head * SIZE
        query = tl.load(base + row[:, None] * 3 * WIDTH + d[None, :], (row < L)[:, None] & (d < SIZE)[None, :], 0.0)
        key = tl.load(base + WIDTH + key_row[None, :] * 3 * WIDTH + d[:, None], (key_row < L)[None, :] & (d < SIZE)[:, None], 0.0)
        score = dot(query, key, tl.zeros([BLOCK_Q, KEYS], tl.float32)) * (LOG2_E / tl.sqrt(1.0 * SIZE))
        score = tl.where((key_row < L)[None, :], score, float("-inf"))
        probability = tl.exp2(score - tl.max(score, 1)[:, None])
        probability = probability / tl.sum(probability, 1)[:, None]
        value = tl.load(base + 2 * WIDTH + key_row[:, None] * 3 * WIDTH + d[None, :], (key_row < L)[:, None] & (d < SIZE)[None, :], 0.0)
        mixed = dot(narrow(probability, value.dtype), value, tl.zeros([BLOCK_Q, PADDED], tl.float32))
        at = out + (sequence + row[:, None]) * WIDTH + head * SIZE + d[None, :]
        tl.store(at, narrow(mixed, out.dtype.element_ty), (row < L)[:, None] & (d < SIZE)[None, :])


@triton.jit
def normalise(x, mask, WIDTH: tl.constexpr):
    """Layer norm of rows [ROWS, BLOCK_W]."""
    x = tl.where(mask, x - tl.sum(x, 1, keep_dims=True) / WIDTH, 0.0)
    return x / tl.sqrt(tl.sum(x * x, 1, keep_dims=True) / WIDTH + EPS)


@triton.jit
def load_gated(x, branch, gate, at, gate_at, mask):
    """Rows of x + gate * branch."""
    opened = tl.load(gate + gate_at, mask, 0.0).to(tl.float32)
    return tl.load(x + at, mask, 0.0) + opened * tl.load(branch + at, mask, 0.0).to(tl.float32)


@triton.jit
def store_modulated(x, hidden, value, modulation, at, modulation_at, mask, WIDTH: tl.constexpr):
    """x = value and hidden = norm(value) * (1 + scale) + shift, where modulation holds shift, then scale."""
    tl.store(x + at, value, mask)
    shift = tl.load(modulation + modulation_at, mask, 0.0).to(tl.float32)
    scale = tl.load(modulation + WIDTH + modulation_at, mask, 0.0).to(tl.float32)
    modulated = normalise(value, mask, WIDTH) * (1.0 + scale) + shift
    tl.store(hidden + at, narrow(modulated, hidden.dtype.element_ty), mask)


@triton.jit
def gated_rows(
    x, branch, hidden, gate, modulation, rows, program, programs,
    STRIDE: tl.constexpr, WIDTH: tl.constexpr, BLOCK_W: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """x += gate * branch, then hidden = norm(x) * (1 + scale) + shift; gate and modulation lie STRIDE apart from row to row."""
    column = tl.arange(0, BLOCK_W)
    for block in range(program, tl.cdiv(rows, ROWS), programs):
        row = block * ROWS + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & (column < WIDTH)[None, :]
        at = row[:, None] * WIDTH + column[None, :]
        gate_at = row[:, None] * STRIDE + column[None, :]
        value = load_gated(x, branch, gate, at, gate_at, mask)
        store_modulated(x, hidden, value, modulation, at, gate_at, mask, WIDTH)
