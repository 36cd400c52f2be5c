"""What lies between two evaluations of the velocity field."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.flow_integrate.parts import load_gated, normalise, store_modulated


@triton.jit
def turn(
    z, x, branch, hidden, before, modulation, norm_weight, norm_bias, leave_weight, leave_bias, enter_weight, enter_bias, position,
    evaluation, program, programs, B, P, T, guidance,
    LAYERS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_W: tl.constexpr, D: tl.constexpr,
    EVALUATIONS: tl.constexpr, STEPS: tl.constexpr, MIDPOINT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The last evaluation's velocities, guidance, the solver's update, and the tokens of the next one, normed for its first layer.

    A program takes whole rows, the guided one and the unguided one of the same step together. Before the first evaluation there is
    nothing to update, and after the last no next one.
    """
    column = tl.arange(0, BLOCK_W)
    known = column < WIDTH
    L = P + T
    STRIDE: tl.constexpr = LAYERS * 6 * WIDTH
    all_rows = tl.cast(2 * B * L, tl.int64) * STRIDE  # of one evaluation's modulation
    looks_ahead = evaluation % 2 == 1 if MIDPOINT else evaluation < 0
    size = tl.where(looks_ahead, 0.5 / STEPS, 1.0 / STEPS)
    for block in range(program, tl.cdiv(B * L, ROWS), programs):
        row = block * ROWS + tl.arange(0, ROWS)  # of the guided half
        b, token = row // L, row % L
        new = (row < B * L) & (token >= P)
        mask = (row < B * L)[:, None] & known[None, :]
        heard_at = row[:, None] * WIDTH + column[None, :]
        heard_gate = row[:, None] * STRIDE + column[None, :]
        unheard_at, unheard_gate = heard_at + B * L * WIDTH, heard_gate + B * L * STRIDE
        heard = tl.zeros([ROWS, BLOCK_W], tl.float32)
        unheard = heard
        if evaluation > 0:
            gate = modulation + (evaluation - 1) * all_rows + STRIDE - WIDTH
            scale = tl.load(norm_weight + column, known, 0.0).to(tl.float32)[None, :]
            shift = tl.load(norm_bias + column, known, 0.0).to(tl.float32)[None, :]
            heard = normalise(load_gated(x, branch, gate, heard_at, heard_gate, mask), mask, WIDTH) * scale + shift
            unheard = normalise(load_gated(x, branch, gate, unheard_at, unheard_gate, mask), mask, WIDTH) * scale + shift
        entered = tl.zeros([ROWS, BLOCK_W], tl.float32) + tl.load(enter_bias + column, known, 0.0).to(tl.float32)[None, :]
        at = z + (b * T + token - P) * D
        for k in range(D):
            value = tl.load(at + k, new, 0.0)
            if evaluation > 0:
                leave = tl.load(leave_weight + k * WIDTH + column, known, 0.0).to(tl.float32)[None, :]
                velocity = tl.sum(unheard * leave, 1)
                velocity += guidance * (tl.sum(heard * leave, 1) - velocity) + tl.load(leave_bias + k).to(tl.float32)
                value += size * velocity
                tl.debug_barrier()  # every thread has read the old value
                tl.store(at + k, value, new & (not looks_ahead))
            entered += value[:, None] * tl.load(enter_weight + k * WIDTH + column, known, 0.0).to(tl.float32)[None, :]
        if evaluation < EVALUATIONS:
            following = modulation + evaluation * all_rows
            placed = tl.load(position + token[:, None] * WIDTH + column[None, :], mask, 0.0).to(tl.float32)
            old = mask & (token < P)[:, None]
            before_at = (b * P + token)[:, None] * WIDTH + column[None, :]
            earlier = tl.load(before + before_at, old, 0.0).to(tl.float32)
            value = placed + tl.where(new[:, None], entered, earlier)
            store_modulated(x, hidden, value, following, heard_at, heard_gate, mask, WIDTH)
            earlier = tl.load(before + B * P * WIDTH + before_at, old, 0.0).to(tl.float32)
            value = placed + tl.where(new[:, None], entered, earlier)
            store_modulated(x, hidden, value, following, unheard_at, unheard_gate, mask, WIDTH)
