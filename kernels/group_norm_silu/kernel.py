"""GroupNorm + SiLU in Triton. A program's tile is channels of one group by positions; both memory formats give the same tile.

Where a group fits in one tile, one program reads it once; where not, two_passes.py has the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.checks import check_float, check_like
from kernels.group_norm_silu.backward import group_norm_silu_backward
from kernels.group_norm_silu.tile import load_affine, load_sum, tile_offsets
from kernels.group_norm_silu.two_passes import group_apply, group_statistics
from kernels.precision import narrow

ONE_PASS = 65536  # bytes of a group, padded to powers of two, that one program holds in registers and spills none
TILE = 8192  # elements of a tile where a group needs several
CHUNKS = 64  # programs at most that share the statistics of one group


@triton.jit
def group_norm_silu_one_pass(
    x, residual, total, weight, bias, scale, shift, y, mean_out, rstd_out, hw, stride_scale, stride_shift,
    EPS: tl.constexpr, GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, MODULATED: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Grid (B * groups). x, residual, total, y [B, C, h, w]; weight, bias [C]; scale, shift [B, C]; mean_out, rstd_out [B, groups]."""
    program = tl.program_id(0)
    b, group = program // GROUPS, program % GROUPS
    k, p = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    c = group * GROUP_CHANNELS + k
    mask = (k < GROUP_CHANNELS)[:, None] & (p < hw)[None, :]
    offsets = tile_offsets(b, c, p, hw, GROUPS, GROUP_CHANNELS, CHANNELS_LAST)
    value = load_sum(x, residual, total, offsets, mask, ADD)
    count = 1.0 * hw * GROUP_CHANNELS
    mean = tl.sum(value) / count
    centred = tl.where(mask, value - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / count + EPS)
    tl.store(mean_out + program, mean)
    tl.store(rstd_out + program, rstd)
    factor, addend = load_affine(weight, bias, scale, shift, b, c, k < GROUP_CHANNELS, stride_scale, stride_shift, MODULATED)
    modulated = centred * (rstd * factor)[:, None] + addend[:, None]
    tl.store(y + offsets, narrow(modulated * tl.sigmoid(modulated), y.dtype.element_ty), mask)


@dataclass(frozen=True)
class Blocks:
    """How one group of ``channels`` by ``positions`` is cut: tiles of [c, p], and chunks of ``span`` positions where one tile is not
    enough (chunks is 0 where it is)."""

    c: int
    p: int
    chunks: int
    span: int
    warps: int


def choose_blocks(channels: int, positions: int, element_size: int) -> Blocks:
    """One tile if it fits in a program's registers, at most CHUNKS chunks of tiles otherwise; 16 elements to a thread, if not more."""
    c, p = triton.next_power_of_2(channels), triton.next_power_of_2(positions)
    chunks, span = 0, positions
    if c * p * element_size > ONE_PASS:
        p = min(p, max(16, TILE // c))
        span = triton.cdiv(triton.cdiv(positions, p), CHUNKS) * p
        chunks = triton.cdiv(positions, span)
    return Blocks(c, p, chunks, span, max(1, min(16, c * p // 512)))


def is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


class GroupNormSiLU(torch.autograd.Function):
    """Gives x' (None without a residual) and y; keeps x', the group statistics and what modulates."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps, scale, shift, residual):
        b, channels, h, w = x.shape
        blocks = choose_blocks(channels // groups, h * w, x.element_size())
        layout = {"GROUPS": groups, "GROUP_CHANNELS": channels // groups, "CHANNELS_LAST": is_channels_last(x)}
        layout |= {"BLOCK_C": blocks.c, "BLOCK_P": blocks.p}
        add, modulated = residual is not None, scale is not None
        total = torch.empty_like(x) if add else x
        y = torch.empty_like(x)
        mean, rstd = (torch.empty(b, groups, device=x.device) for _ in range(2))
        strides = (scale.stride(0), shift.stride(0)) if modulated else (0, 0)
        if blocks.chunks:
            partial = torch.empty(b * groups, blocks.chunks, 2, device=x.device)
            group_statistics[(blocks.chunks, b * groups)](
                x, residual, total, partial, h * w, blocks.span, **layout, ADD=add, num_warps=blocks.warps
            )  # fmt: skip
            group_apply[(triton.cdiv(h * w, blocks.p), b * groups)](
                total, weight, bias, scale, shift, y, partial, mean, rstd, h * w, blocks.span, blocks.chunks, *strides,
                EPS=eps, **layout, BLOCK_CHUNKS=triton.next_power_of_2(blocks.chunks), MODULATED=modulated, num_warps=blocks.warps,
            )  # fmt: skip
        else:
            group_norm_silu_one_pass[(b * groups,)](
                x, residual, total, weight, bias, scale, shift, y, mean, rstd, h * w, *strides,
                EPS=eps, **layout, MODULATED=modulated, ADD=add, num_warps=blocks.warps,
            )  # fmt: skip
        ctx.groups = groups
        ctx.save_for_backward(total, weight, bias, scale, shift, mean, rstd)
        return (total if add else None), y

    @staticmethod
    def backward(ctx, d_total, dy):
        x, weight, bias, scale, shift, mean, rstd = ctx.saved_tensors
        gradients = group_norm_silu_backward(dy, d_total, x, weight, bias, scale, shift, mean, rstd, ctx.groups)
        dx, d_weight, d_bias, d_scale, d_shift = gradients
        return dx, d_weight, d_bias, None, None, d_scale, d_shift, (None if d_total is None else dx)


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float = 1e-5,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x' = x + residual (x where there is none), y = silu(norm(x') * (1 + scale) + shift); see reference.py for the formula.

    x, residual [B, C, h, w] in either memory format, which the outputs keep; weight, bias [C]; scale, shift [B, C] or neither.
    float32, float16 or bfloat16; float32 inside. Differentiable in every tensor. ValueError names what does not fit.
    """
    operation = "group_norm_silu"
    check_float(operation, "x", x)
    if x.dim() != 4:
        raise ValueError(f"{operation}: x has shape {tuple(x.shape)}, wanted [B, C, h, w]")
    b, channels = x.shape[:2]
    if channels % groups:
        raise ValueError(f"{operation}: groups is {groups}, wanted a divisor of the {channels} channels")
    if (scale is None) != (shift is None):
        raise ValueError(f"{operation}: {'scale' if scale is None else 'shift'} is None, wanted both scale and shift or neither")
    for name, tensor, shape in [
        ("weight", weight, (channels,)),
        ("bias", bias, (channels,)),
        ("scale", scale, (b, channels)),
        ("shift", shift, (b, channels)),
        ("residual", residual, x.shape),
    ]:
        if tensor is not None:
            check_like(operation, name, tensor, shape, x)
    if not x.is_contiguous(memory_format=torch.channels_last):
        x = x.contiguous()
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last if is_channels_last(x) else torch.contiguous_format)
    if scale is not None and shift is not None:
        scale, shift = (each if each.stride(1) == 1 else each.contiguous() for each in (scale, shift))
    total, y = GroupNormSiLU.apply(x, weight.contiguous(), bias.contiguous(), groups, eps, scale, shift, residual)
    return x if total is None else total, y
