"""warp_crop in Triton: each program makes some pixels of one crop, reading the frame where it lies."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from flashlips_edge.media.colour import Colour
from kernels.checks import FLOATS
from kernels.frames import check_frame
from kernels.precision import narrow
from kernels.warp_crop.geometry import grid_of, halve
from kernels.yuv import rgb_of_yuv

BLOCK = 512
NUMBERS = tl.constexpr(14)  # of one grid


@triton.jit
def cover(pixel, begin, step):
    """The share of a cell from begin to begin + step that one pixel covers."""
    return tl.maximum(tl.minimum(pixel + 1.0, begin + step) - tl.maximum(pixel, begin), 0.0) / step


@triton.jit
def sample(plane, stride, grid, u, v, mask, CHANNELS: tl.constexpr):
    """Three channels float32 [BLOCK] of a plane [h, w, CHANNELS] at crop pixels u, v; those past CHANNELS are 0. See reference.sample."""
    x = tl.load(grid) * u + tl.load(grid + 1) * v + tl.load(grid + 2)
    y = tl.load(grid + 3) * u + tl.load(grid + 4) * v + tl.load(grid + 5)
    left, top, step_x, step_y = tl.load(grid + 6), tl.load(grid + 7), tl.load(grid + 8), tl.load(grid + 9)
    last_column, last_row = tl.load(grid + 10) - 1.0, tl.load(grid + 11) - 1.0
    last_x, last_y = tl.load(grid + 12) - 1.0, tl.load(grid + 13) - 1.0
    column, row = tl.floor(x), tl.floor(y)
    share_x, share_y = x - column, y - row
    near_x = left + tl.clamp(column, 0.0, last_column) * step_x
    far_x = left + tl.clamp(column + 1.0, 0.0, last_column) * step_x
    near_y = top + tl.clamp(row, 0.0, last_row) * step_y
    far_y = top + tl.clamp(row + 1.0, 0.0, last_row) * step_y
    first = tl.zeros_like(x)
    second = tl.zeros_like(x)
    third = tl.zeros_like(x)
    for j in range(tl.ceil(2.0 * step_y).to(tl.int32) + 1):
        pixel_y = tl.floor(near_y) + j
        of_row = (1.0 - share_y) * cover(pixel_y, near_y, step_y) + share_y * cover(pixel_y, far_y, step_y)
        line = plane + tl.minimum(pixel_y, last_y).to(tl.int64) * stride
        for i in range(tl.ceil(2.0 * step_x).to(tl.int32) + 1):
            pixel_x = tl.floor(near_x) + i
            weight = of_row * ((1.0 - share_x) * cover(pixel_x, near_x, step_x) + share_x * cover(pixel_x, far_x, step_x))
            at = line + tl.minimum(pixel_x, last_x).to(tl.int32) * CHANNELS
            read = mask & (weight > 0.0)
            first += weight * tl.load(at, read, 0).to(tl.float32)
            if CHANNELS > 1:
                second += weight * tl.load(at + 1, read, 0).to(tl.float32)
            if CHANNELS > 2:
                third += weight * tl.load(at + 2, read, 0).to(tl.float32)
    return first, second, third


@triton.jit
def whole_level(value, dtype: tl.constexpr):
    """0..255 to the nearest whole level, as a share of 255."""
    return narrow(tl.floor(tl.clamp(value, 0.0, 255.0) + 0.5) / 255.0, dtype)


@triton.jit
def warp_crop_kernel(frame, grids, rgb_of_yuv, out, height, size, stride_b, stride_y, NV12: tl.constexpr, BLOCK: tl.constexpr):
    """frame uint8 -> out [B, 3, size, size]. grids float32 [B, 2, 14], the frame's and its chroma's; rgb_of_yuv float32 [3, 4].

    Programs: blocks of size * size x B.
    """
    b = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < size * size
    u, v = (pixel % size).to(tl.float32), (pixel // size).to(tl.float32)
    frame += b * stride_b
    grids += b * 2 * NUMBERS
    if NV12:
        luma, _, _ = sample(frame, stride_y, grids, u, v, mask, 1)
        blue, red, _ = sample(frame + height * stride_y, stride_y, grids + NUMBERS, u, v, mask, 2)
        m = rgb_of_yuv
        first = tl.load(m) * luma + tl.load(m + 1) * blue + tl.load(m + 2) * red + tl.load(m + 3)
        second = tl.load(m + 4) * luma + tl.load(m + 5) * blue + tl.load(m + 6) * red + tl.load(m + 7)
        third = tl.load(m + 8) * luma + tl.load(m + 9) * blue + tl.load(m + 10) * red + tl.load(m + 11)
    else:
        first, second, third = sample(frame, stride_y, grids, u, v, mask, 3)
    out += b * 3 * size * size + pixel
    dtype: tl.constexpr = out.dtype.element_ty
    tl.store(out, whole_level(first, dtype), mask)
    tl.store(out + size * size, whole_level(second, dtype), mask)
    tl.store(out + 2 * size * size, whole_level(third, dtype), mask)


def warp_crop(frame: Tensor, transform: Tensor, size: int, dtype: torch.dtype = torch.float32, colour: Colour | None = None) -> Tensor:
    """The crops' pictures [B, 3, S, S] in [0, 1], of ``dtype``: what the latent encoder takes.

    frame uint8 RGB [B, H, W, 3], or NV12 [B, 3 * H / 2, W] whose numbers mean ``colour``; rows may have a pitch. transform float [B, 2, 3]
    on the CPU: a similarity from frame to crop pixels, as in flashlips_edge.face.crop.Crop. Values are whole 255ths; borders repeat; a
    reduction below 0.6 averages first. Raises ValueError naming what has another shape, type, stride or place.
    """
    height, width = check_frame("warp_crop", frame, transform, colour)
    if dtype not in FLOATS:
        raise ValueError(f"warp_crop: dtype is {dtype}, wanted float32, float16 or bfloat16")
    if size < 1:
        raise ValueError(f"warp_crop: size is {size}, wanted at least 1")
    found = [grid_of(matrix, width, height, size) for matrix in transform.numpy()]
    grids = torch.tensor([[grid.numbers(), halve(grid).numbers()] for grid in found], dtype=torch.float32).to(frame.device)
    matrix = None if colour is None else rgb_of_yuv(colour).float().to(frame.device)
    out = torch.empty(len(frame), 3, size, size, device=frame.device, dtype=dtype)
    warp_crop_kernel[(triton.cdiv(size * size, BLOCK), len(frame))](
        frame, grids, matrix, out, height, size, frame.stride(0), frame.stride(1), NV12=colour is not None, BLOCK=BLOCK
    )
    return out
