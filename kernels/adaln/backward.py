"""The gradient of AdaLN: one program for the same rows, which normalises them again."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.adaln.rows import choose_rows, normalise
from kernels.precision import narrow


@triton.jit
def adaln_rows_backward(
    dy, d_total, x, scale, branch, gate, dx, d_scale, d_branch, d_gate, rows, length, stride_batch, stride_row,
    EPS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_ROWS: tl.constexpr, ADD: tl.constexpr, CENTRE: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of rows). With g = dy * (1 + scale): dx = d_total + rstd * (g - mean(g) - normalised * mean(g * normalised))."""
    row, column = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_W)
    mask = (row < rows)[:, None] & (column < WIDTH)[None, :]
    offsets = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    condition = (row // length * stride_batch + row % length * stride_row)[:, None] + column[None, :]
    up = tl.load(dy + offsets, mask, 0.0).to(tl.float32)
    normalised, rstd = normalise(tl.load(x + offsets, mask, 0.0).to(tl.float32), mask, EPS, WIDTH, CENTRE)
    tl.store(d_scale + offsets, narrow(up * normalised, d_scale.dtype.element_ty), mask)
    gradient = up * (1.0 + tl.load(scale + condition, mask, 0.0).to(tl.float32))
    centre = normalised * (tl.sum(gradient * normalised, 1, keep_dims=True) / WIDTH)
    if CENTRE:
        centre += tl.sum(gradient, 1, keep_dims=True) / WIDTH
    gradient = rstd * (gradient - centre)
    if ADD:
        gradient += tl.load(d_total + offsets, mask, 0.0).to(tl.float32)
        opened = tl.load(gate + condition, mask, 0.0).to(tl.float32)
        tl.store(d_branch + offsets, narrow(gradient * opened, d_branch.dtype.element_ty), mask)
        added = tl.load(branch + offsets, mask, 0.0).to(tl.float32)
        tl.store(d_gate + offsets, narrow(gradient * added, d_gate.dtype.element_ty), mask)
    tl.store(dx + offsets, narrow(gradient, dx.dtype.element_ty), mask)


def adaln_backward(
    dy: Tensor, d_total: Tensor | None, x: Tensor, scale: Tensor, branch: Tensor | None, gate: Tensor | None, eps: float, centre: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """dy, d_total (the gradients at y and x'), x', scale, branch, gate [B, L, width] -> the gradients of x, scale, branch and gate."""
    b, length, width = x.shape
    dx, d_scale = torch.empty_like(x), torch.empty(x.shape, dtype=scale.dtype, device=x.device)
    d_branch, d_gate = (None if each is None else torch.empty(x.shape, dtype=each.dtype, device=x.device) for each in (branch, gate))
    block_w, block_rows, warps = choose_rows(width)
    adaln_rows_backward[(triton.cdiv(b * length, block_rows),)](
        dy.contiguous(), None if d_total is None else d_total.contiguous(), x, scale, branch, gate, dx, d_scale, d_branch, d_gate,
        b * length, length, scale.stride(0), scale.stride(1),
        EPS=eps, WIDTH=width, BLOCK_W=block_w, BLOCK_ROWS=block_rows, ADD=branch is not None, CENTRE=centre, num_warps=warps,
    )  # fmt: skip
    return dx, d_scale, d_branch, d_gate
