"""The lips convolution in Triton: a product of [positions, channels] and [channels, out] for each of the nine taps.

The lips vector's part of a tap is one vector per sample, sum over k of weight[:, C + k, tap] * lips[k]; it is added wherever the tap
lies inside the map, which is all that the border changes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from flashlips_edge.models.layers import LIPS
from kernels.checks import check_float, check_like
from kernels.lips_conv.configurations import choose_blocks
from kernels.precision import dot, narrow


@triton.jit
def lips_conv_tiles(
    x, lips, weight, bias, out, h, w,
    C: tl.constexpr, LIPS: tl.constexpr, OUT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_L: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of positions, tiles of out, B). x [B, C, h, w], lips [B, LIPS], weight [OUT, 3, 3, C + LIPS], bias [OUT],
    out [B, OUT, h, w]; x and out are both channels last or neither."""
    b = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    row, column = p // w, p % w
    x_position = C if CHANNELS_LAST else 1
    x_channel = 1 if CHANNELS_LAST else h * w
    k, j = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_L)
    here = lips + b * LIPS + j
    vector = tl.load(here, j < LIPS, 0.0).to(tl.float32)
    total = tl.zeros([BLOCK_P, BLOCK_O], tl.float32)
    for tap in range(9):
        down, right = tap // 3 - 1, tap % 3 - 1
        inside = (row + down >= 0) & (row + down < h) & (column + right >= 0) & (column + right < w)
        of_x = x + b * (h * w * C) + (p + down * w + right)[:, None] * x_position
        of_weight = weight + o[None, :] * ((C + LIPS) * 9) + tap * (C + LIPS)
        for start in range(0, C, BLOCK_K):
            c = start + k
            pixels = tl.load(of_x + c[None, :] * x_channel, inside[:, None] & (c < C)[None, :], 0.0)
            taps = tl.load(of_weight + c[:, None], (c < C)[:, None] & (o < OUT)[None, :], 0.0)
            total = dot(pixels, taps, total)
        of_lips = tl.load(of_weight + (C + j)[:, None], (j < LIPS)[:, None] & (o < OUT)[None, :], 0.0)
        added = tl.sum(of_lips.to(tl.float32) * vector[:, None], 0)  # [o]
        total += tl.where(inside[:, None], added[None, :], 0.0)
    total += tl.load(bias + o, o < OUT, 0.0).to(tl.float32)[None, :]
    out_position = OUT if CHANNELS_LAST else 1
    out_channel = 1 if CHANNELS_LAST else h * w
    offsets = b * (h * w * OUT) + p[:, None] * out_position + o[None, :] * out_channel
    tl.store(out + offsets, narrow(total, out.dtype.element_ty), (p < h * w)[:, None] & (o < OUT)[None, :])


def lips_conv(x: Tensor, lips: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 convolution, padded with zeros, of x and the lips vector expanded to its size; see reference.py.

    x [B, C, h, w] in either memory format, which the output keeps; channels last is the faster. lips [B, 12]; weight [out, C + 12, 3, 3],
    the lips vector's part last, copied unless it is channels last; bias [out]. One type for all: float32, float16 or bfloat16; float32
    inside. Not differentiable. ValueError names what does not fit.
    """
    operation = "lips_conv"
    check_float(operation, "x", x)
    if x.dim() != 4:
        raise ValueError(f"{operation}: x has shape {tuple(x.shape)}, wanted [B, C, h, w]")
    b, channels, h, w = x.shape
    out_channels = weight.shape[0]
    for name, tensor, shape in [
        ("lips", lips, (b, LIPS)),
        ("weight", weight, (out_channels, channels + LIPS, 3, 3)),
        ("bias", bias, (out_channels,)),
    ]:
        check_like(operation, name, tensor, shape, x)
        if tensor.dtype != x.dtype:
            raise ValueError(f"{operation}: {name} is {tensor.dtype}, wanted {x.dtype} as x is")
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if last else torch.contiguous_format
    out = torch.empty(b, out_channels, h, w, dtype=x.dtype, device=x.device, memory_format=memory_format)
    blocks = choose_blocks(b, h * w, out_channels, x.element_size())
    lips_conv_tiles[(triton.cdiv(h * w, blocks.positions), triton.cdiv(out_channels, blocks.out), b)](
        x.contiguous(memory_format=memory_format), lips.contiguous(), weight.contiguous(memory_format=torch.channels_last),
        bias.contiguous(), out, h, w,
        C=channels, LIPS=LIPS, OUT=out_channels, BLOCK_P=blocks.positions, BLOCK_O=blocks.out, BLOCK_K=blocks.channels,
        BLOCK_L=triton.next_power_of_2(LIPS), CHANNELS_LAST=last,
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    return out
