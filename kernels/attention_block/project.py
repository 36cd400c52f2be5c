"""A linear layer on tokens with any strides, with the group norm before it and the residual after it."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.precision import dot, narrow


@triton.jit
def normalise_kernel(
    x, weight, bias, multiply, add, L, C, group, eps, stride_b, stride_l, stride_c, CHANNELS: tl.constexpr, POSITIONS: tl.constexpr
):
    """Group norm as one factor and one summand per channel: multiply and add float32 [B, C]. Programs: B x groups.

    The mean is known before squares are summed, so that a large mean costs no digits.
    """
    b, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * group
    x += b * stride_b
    channel = tl.arange(0, CHANNELS)
    position = tl.arange(0, POSITIONS)
    total = tl.zeros([CHANNELS, POSITIONS], tl.float32)
    for start in range(0, L, POSITIONS):
        inside = (channel < group)[:, None] & (start + position < L)[None, :]
        total += tl.load(x + (first + channel)[:, None] * stride_c + (start + position)[None, :] * stride_l, inside, 0.0).to(tl.float32)
    mean = tl.sum(tl.sum(total, 1), 0) / (group * L)
    total = tl.zeros([CHANNELS, POSITIONS], tl.float32)
    for start in range(0, L, POSITIONS):
        inside = (channel < group)[:, None] & (start + position < L)[None, :]
        value = tl.load(x + (first + channel)[:, None] * stride_c + (start + position)[None, :] * stride_l, inside, 0.0).to(tl.float32)
        away = tl.where(inside, value - mean, 0.0)
        total += away * away
    inverse = 1.0 / tl.sqrt(tl.sum(tl.sum(total, 1), 0) / (group * L) + eps)
    factor = tl.load(weight + first + channel, channel < group, 0.0).to(tl.float32) * inverse
    summand = tl.load(bias + first + channel, channel < group, 0.0).to(tl.float32) - mean * factor
    tl.store(multiply + b * C + first + channel, factor, channel < group)
    tl.store(add + b * C + first + channel, summand, channel < group)


@triton.jit
def project_kernel(
    x, weight, bias, multiply, add, residual, out, L, N, K,
    x_b, x_l, x_c, out_b, out_l, out_c, residual_b, residual_l, residual_c,
    NORM: tl.constexpr, RESIDUAL: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """out [B, L, N] = residual + (x * multiply + add) @ weight^T + bias, for x [B, L, K] and weight [N, K].

    Programs: blocks of N x blocks of L x B. The norm is applied as x is read.
    """
    b = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    x += b * x_b
    total = tl.zeros([BLOCK_L, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + inner
        value = tl.load(x + row[:, None] * x_l + k[None, :] * x_c, (row < L)[:, None] & (k < K)[None, :], 0.0)
        if NORM:
            factor = tl.load(multiply + b * K + k, k < K, 0.0)
            summand = tl.load(add + b * K + k, k < K, 0.0)
            value = narrow(value.to(tl.float32) * factor[None, :] + summand[None, :], weight.dtype.element_ty)
        weights = tl.load(weight + column[None, :] * K + k[:, None], (column < N)[None, :] & (k < K)[:, None], 0.0)
        total = dot(value, weights, total)
    total += tl.load(bias + column, column < N, 0.0).to(tl.float32)[None, :]
    inside = (row < L)[:, None] & (column < N)[None, :]
    if RESIDUAL:
        total += tl.load(residual + b * residual_b + row[:, None] * residual_l + column[None, :] * residual_c, inside, 0.0).to(tl.float32)
    at = out + b * out_b + row[:, None] * out_l + column[None, :] * out_c
    tl.store(at, narrow(total, out.dtype.element_ty), inside)
