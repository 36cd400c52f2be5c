"""flow_step in Triton: a program makes a block of steps by a block of features, of both halves of the guided batch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.checks import check_float, check_like
from kernels.precision import narrow

BLOCK_L, BLOCK_W = 16, 128


@triton.jit
def flow_step_kernel(
    z, velocities, enter_weight, enter_bias, before, position, out, tokens, size, guidance, B, P, T, W,
    DIMENSIONS: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """z, out [B, T, D]; velocities [2B, T, D]; before [2B, P, W]; tokens [2B, P + T, W]. Programs: blocks of W x blocks of P + T x B.

    Every block of features makes the new z for itself; the first writes it.
    """
    b = tl.program_id(2).to(tl.int64)
    token = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    feature = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)
    known = feature < W
    step = token - P
    new = (step >= 0) & (step < T)
    entered = tl.zeros([BLOCK_L, BLOCK_W], tl.float32) + tl.load(enter_bias + feature, known, 0.0).to(tl.float32)[None, :]
    for k in range(DIMENSIONS):
        at = (b * T + step) * DIMENSIONS + k
        heard = tl.load(velocities + at, new, 0.0).to(tl.float32)
        unheard = tl.load(velocities + B * T * DIMENSIONS + at, new, 0.0).to(tl.float32)
        value = tl.load(z + at, new, 0.0).to(tl.float32) + size * (unheard + guidance * (heard - unheard))
        rounded = narrow(value, out.dtype.element_ty)
        if tl.program_id(0) == 0:
            tl.store(out + at, rounded, new)
        weight = tl.load(enter_weight + feature * DIMENSIONS + k, known, 0.0).to(tl.float32)
        entered += rounded.to(tl.float32)[:, None] * weight[None, :]
    inside = (token < P + T)[:, None] & known[None, :]
    placed = tl.load(position + token[:, None] * W + feature[None, :], inside, 0.0).to(tl.float32)
    old = (token < P)[:, None] & known[None, :]
    for half in tl.static_range(2):
        row = half * B + b
        earlier = tl.load(before + (row * P + token[:, None]) * W + feature[None, :], old, 0.0).to(tl.float32)
        value = placed + tl.where((token < P)[:, None], earlier, entered)
        tl.store(tokens + (row * (P + T) + token[:, None]) * W + feature[None, :], narrow(value, tokens.dtype.element_ty), inside)


def flow_step(
    z: Tensor, velocities: Tensor, size: float, guidance: float, enter_weight: Tensor, enter_bias: Tensor, before: Tensor, position: Tensor
) -> tuple[Tensor, Tensor]:
    """z' [B, T, D] = z + size * (v_no + guidance * (v - v_no)), and the velocity field's next tokens [2B, P + T, W], twice the same
    but for the tokens before.

    z [B, T, D]; velocities [2B, T, D], with the condition and then without it; size in flow time; enter_weight [W, D], enter_bias [W];
    before [2B, P, W]; position [1, P + T, W]. float32, float16 or bfloat16, outputs of z's type, float32 inside; no gradient.
    Raises ValueError naming what does not fit.
    """
    check_float("flow_step", "z", z)
    if z.ndim != 3 or before.ndim != 3:
        raise ValueError(f"flow_step: z and before have {z.ndim} and {before.ndim} dimensions, wanted 3 and 3")
    b, steps, dimensions = z.shape
    earlier, width = before.shape[1:]
    for name, tensor, shape in (
        ("velocities", velocities, (2 * b, steps, dimensions)),
        ("enter_weight", enter_weight, (width, dimensions)),
        ("enter_bias", enter_bias, (width,)),
        ("before", before, (2 * b, earlier, width)),
        ("position", position, (1, earlier + steps, width)),
    ):
        check_like("flow_step", name, tensor, shape, z)
    out = torch.empty(b, steps, dimensions, device=z.device, dtype=z.dtype)
    tokens = torch.empty(2 * b, earlier + steps, width, device=z.device, dtype=z.dtype)
    tensors = [each.contiguous() for each in (z, velocities, enter_weight, enter_bias, before, position)]
    flow_step_kernel[(triton.cdiv(width, BLOCK_W), triton.cdiv(earlier + steps, BLOCK_L), b)](
        *tensors, out, tokens, size, guidance, b, earlier, steps, width, DIMENSIONS=dimensions, BLOCK_L=BLOCK_L, BLOCK_W=BLOCK_W
    )
    return out, tokens
