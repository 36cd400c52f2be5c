"""AdaLN in Triton: a program holds whole rows in registers and reads and writes each once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.adaln.backward import adaln_backward
from kernels.adaln.rows import choose_rows, normalise
from kernels.checks import check_float, check_like
from kernels.precision import narrow


@triton.jit
def adaln_rows(
    x, branch, total, scale, shift, gate, y, rows, length, stride_batch, stride_row,
    EPS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_ROWS: tl.constexpr, ADD: tl.constexpr, CENTRE: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of rows). x, branch, total, y [rows, WIDTH]; scale, shift, gate at batch * stride_batch + step * stride_row."""
    row, column = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_W)
    mask = (row < rows)[:, None] & (column < WIDTH)[None, :]
    offsets = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    condition = (row // length * stride_batch + row % length * stride_row)[:, None] + column[None, :]
    value = tl.load(x + offsets, mask, 0.0).to(tl.float32)
    if ADD:
        opened = tl.load(gate + condition, mask, 0.0).to(tl.float32) * tl.load(branch + offsets, mask, 0.0).to(tl.float32)
        rounded = narrow(value + opened, total.dtype.element_ty)
        tl.store(total + offsets, rounded, mask)
        value = rounded.to(tl.float32)
    normalised, _ = normalise(value, mask, EPS, WIDTH, CENTRE)
    grow = 1.0 + tl.load(scale + condition, mask, 0.0).to(tl.float32)
    result = normalised * grow + tl.load(shift + condition, mask, 0.0).to(tl.float32)
    tl.store(y + offsets, narrow(result, y.dtype.element_ty), mask)


class AdaLN(torch.autograd.Function):
    """Gives x' (None without a branch) and y; the normalisation is made again on the way back."""

    @staticmethod
    def forward(ctx, x, scale, shift, branch, gate, eps, centre):
        b, length, width = x.shape
        add = branch is not None
        total = torch.empty_like(x) if add else x
        y = torch.empty_like(x)
        block_w, block_rows, warps = choose_rows(width)
        adaln_rows[(triton.cdiv(b * length, block_rows),)](
            x, branch, total, scale, shift, gate, y, b * length, length, scale.stride(0), scale.stride(1),
            EPS=eps, WIDTH=width, BLOCK_W=block_w, BLOCK_ROWS=block_rows, ADD=add, CENTRE=centre, num_warps=warps,
        )  # fmt: skip
        ctx.eps, ctx.centre = eps, centre
        ctx.save_for_backward(total, scale, branch, gate)
        return (total if add else None), y

    @staticmethod
    def backward(ctx, d_total, dy):
        x, scale, branch, gate = ctx.saved_tensors
        dx, d_scale, d_branch, d_gate = adaln_backward(dy, d_total, x, scale, branch, gate, ctx.eps, ctx.centre)
        return dx, d_scale, dy, d_branch, d_gate, None, None


def adaln(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    branch: Tensor | None = None,
    gate: Tensor | None = None,
    eps: float = 1e-5,
    norm: str = "layer",
) -> tuple[Tensor, Tensor]:
    """x' = x + gate * branch (x where there is no branch), y = norm(x') * (1 + scale) + shift; see reference.py for the formula.

    x, branch [B, L, width]; scale, shift, gate [B, L, width] or [B, 1, width], as slices of one tensor too; norm "layer" or "rms".
    float32, float16 or bfloat16; float32 inside. Differentiable in every tensor. ValueError names what does not fit.
    """
    operation = "adaln"
    check_float(operation, "x", x)
    if x.dim() != 3:
        raise ValueError(f"{operation}: x has shape {tuple(x.shape)}, wanted [B, L, width]")
    if norm not in ("layer", "rms"):
        raise ValueError(f"{operation}: norm is {norm!r}, wanted 'layer' or 'rms'")
    if (branch is None) != (gate is None):
        raise ValueError(f"{operation}: {'branch' if branch is None else 'gate'} is None, wanted both branch and gate or neither")
    b, length, width = x.shape
    for name, tensor in [("scale", scale), ("shift", shift), ("gate", gate)]:
        if tensor is not None:
            check_like(operation, name, tensor, (b, 1 if tensor.dim() == 3 and tensor.shape[1] == 1 else length, width), x)
    if branch is not None:
        check_like(operation, "branch", branch, (b, length, width), x)
        branch = branch.contiguous()
    conditions = [each.expand(b, length, width) for each in (scale, shift, gate) if each is not None]
    if len({each.stride() for each in conditions}) > 1 or conditions[0].stride(2) != 1:
        conditions = [each.contiguous() for each in conditions]
    total, y = AdaLN.apply(x.contiguous(), *conditions[:2], branch, conditions[2] if gate is not None else None, eps, norm == "layer")
    return x if total is None else total, y
