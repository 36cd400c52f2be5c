"""The gradient of GroupNorm + SiLU. With dm the gradient at the modulated value, everything follows from two sums over positions,
sum(dm) and sum(dm * normalised) per sample and channel: one kernel makes them, another the gradient of x."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.group_norm_silu.tile import load_affine, tile_offsets
from kernels.precision import narrow

TILE = 4096  # elements; two inputs and two sums are held at once


@triton.jit
def modulated_gradient(x, dy, offsets, mask, mean, rstd, factor, addend):
    """The normalised x and the gradient at the modulated value, float32 [c, p]."""
    normalised = (tl.load(x + offsets, mask, 0.0).to(tl.float32) - mean) * rstd
    modulated = normalised * factor[:, None] + addend[:, None]
    sigmoid = tl.sigmoid(modulated)
    gradient = tl.load(dy + offsets, mask, 0.0).to(tl.float32) * sigmoid * (1.0 + modulated * (1.0 - sigmoid))
    return tl.where(mask, normalised, 0.0), gradient


@triton.jit
def backward_sums(
    dy, x, weight, bias, scale, shift, mean_in, rstd_in, sums, hw, stride_scale, stride_shift,
    GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, MODULATED: tl.constexpr,
):  # fmt: skip
    """Grid (B * groups). sums [2, B, C] float32: sum(dm) and sum(dm * normalised) over positions."""
    program = tl.program_id(0)
    b, group = program // GROUPS, program % GROUPS
    k = tl.arange(0, BLOCK_C)
    c = group * GROUP_CHANNELS + k
    mean, rstd = tl.load(mean_in + program), tl.load(rstd_in + program)
    factor, addend = load_affine(weight, bias, scale, shift, b, c, k < GROUP_CHANNELS, stride_scale, stride_shift, MODULATED)
    plain = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    weighted = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    for start in range(0, hw, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (k < GROUP_CHANNELS)[:, None] & (p < hw)[None, :]
        offsets = tile_offsets(b, c, p, hw, GROUPS, GROUP_CHANNELS, CHANNELS_LAST)
        normalised, gradient = modulated_gradient(x, dy, offsets, mask, mean, rstd, factor, addend)
        plain += gradient
        weighted += gradient * normalised
    tl.store(sums + b * (GROUPS * GROUP_CHANNELS) + c, tl.sum(plain, 1), k < GROUP_CHANNELS)
    second = sums + (tl.num_programs(0) + b * GROUPS) * GROUP_CHANNELS
    tl.store(second + c, tl.sum(weighted, 1), k < GROUP_CHANNELS)


@triton.jit
def backward_input(
    dy, d_total, x, weight, bias, scale, shift, mean_in, rstd_in, sums, dx, hw, stride_scale, stride_shift,
    GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, MODULATED: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of positions, B * groups). dx = rstd * (g - mean(g) - normalised * mean(g * normalised)), g = dm * factor."""
    tile, program = tl.program_id(0), tl.program_id(1)
    b, group = program // GROUPS, program % GROUPS
    k, p = tl.arange(0, BLOCK_C), tile * BLOCK_P + tl.arange(0, BLOCK_P)
    c = group * GROUP_CHANNELS + k
    mean, rstd = tl.load(mean_in + program), tl.load(rstd_in + program)
    factor, addend = load_affine(weight, bias, scale, shift, b, c, k < GROUP_CHANNELS, stride_scale, stride_shift, MODULATED)
    plain = tl.load(sums + b * (GROUPS * GROUP_CHANNELS) + c, k < GROUP_CHANNELS, 0.0)
    weighted = tl.load(sums + (tl.num_programs(1) + b * GROUPS) * GROUP_CHANNELS + c, k < GROUP_CHANNELS, 0.0)
    count = 1.0 * hw * GROUP_CHANNELS
    mask = (k < GROUP_CHANNELS)[:, None] & (p < hw)[None, :]
    offsets = tile_offsets(b, c, p, hw, GROUPS, GROUP_CHANNELS, CHANNELS_LAST)
    normalised, gradient = modulated_gradient(x, dy, offsets, mask, mean, rstd, factor, addend)
    centre = tl.sum(plain * factor) / count + normalised * (tl.sum(weighted * factor) / count)
    gradient = rstd * (gradient * factor[:, None] - centre)
    if ADD:
        gradient += tl.load(d_total + offsets, mask, 0.0).to(tl.float32)
    tl.store(dx + offsets, narrow(gradient, dx.dtype.element_ty), mask)


def group_norm_silu_backward(
    dy: Tensor,
    d_total: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """dy, d_total (the gradients at y and x'), x' [B, C, h, w]; mean, rstd [B, groups] -> those of x, weight, bias, scale, shift."""
    b, channels, h, w = x.shape
    last = not x.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    dy = dy.contiguous(memory_format=memory_format)
    if d_total is not None:
        d_total = d_total.contiguous(memory_format=memory_format)
    block_c = triton.next_power_of_2(channels // groups)
    block_p = min(triton.next_power_of_2(h * w), max(16, TILE // block_c))
    layout = {"GROUPS": groups, "GROUP_CHANNELS": channels // groups, "CHANNELS_LAST": last, "MODULATED": scale is not None}
    layout |= {"BLOCK_C": block_c, "BLOCK_P": block_p}
    strides = (0, 0) if scale is None or shift is None else (scale.stride(0), shift.stride(0))
    inputs = (x, weight, bias, scale, shift, mean, rstd)
    sums = torch.empty(2, b, channels, device=x.device)
    dx = torch.empty_like(x)
    backward_sums[(b * groups,)](dy, *inputs, sums, h * w, *strides, **layout, num_warps=8)
    backward_input[(triton.cdiv(h * w, block_p), b * groups)](
        dy, d_total, *inputs, sums, dx, h * w, *strides, **layout, ADD=d_total is not None, num_warps=8
    )  # fmt: skip
    plain, weighted = sums
    grow = torch.ones_like(plain) if scale is None else 1 + scale.float()
    d_weight, d_bias = ((grow * each).sum(0) for each in (weighted, plain))
    if scale is None or shift is None:
        return dx, d_weight.to(weight.dtype), d_bias.to(bias.dtype), None, None
    d_scale = weight.float() * weighted + bias.float() * plain
    return dx, d_weight.to(weight.dtype), d_bias.to(bias.dtype), d_scale.to(scale.dtype), plain.to(shift.dtype)
