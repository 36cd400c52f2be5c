"""The kernels of paste_back that read the frame: RGB pixel by pixel, NV12 four pixels at a time, which share their chroma."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sample_layers(crop, edited, weight, feather, place, x, y, size, mask):
    """At frame pixels x, y: the change of red, green and blue that reaches the frame, the share of it that is replaced, and the crop's
    own red, green and blue, 0..255. Outside of the crop nothing changes and its border repeats."""
    u = tl.load(place) * x + tl.load(place + 1) * y + tl.load(place + 2)
    v = tl.load(place + 3) * x + tl.load(place + 4) * y + tl.load(place + 5)
    left, top = tl.floor(u), tl.floor(v)
    plane = size * size
    zero = tl.zeros_like(u)
    change_r, change_g, change_b, replaced, red, green, blue = zero, zero, zero, zero, zero, zero, zero
    for j in tl.static_range(2):
        for i in tl.static_range(2):
            column, row = left + i, top + j
            share = (1.0 - tl.abs(u - column)) * (1.0 - tl.abs(v - row))
            inside = mask & (column >= 0) & (column < size) & (row >= 0) & (row < size)
            at = tl.clamp(row, 0.0, size - 1.0).to(tl.int32) * size + tl.clamp(column, 0.0, size - 1.0).to(tl.int32)
            amount = share * tl.load(feather + at, inside, 0.0) * 255.0
            replaced += share * tl.load(weight + at, inside, 0.0)
            old_r = tl.load(crop + at, mask, 0.0).to(tl.float32)
            old_g = tl.load(crop + plane + at, mask, 0.0).to(tl.float32)
            old_b = tl.load(crop + 2 * plane + at, mask, 0.0).to(tl.float32)
            change_r += amount * (tl.clamp(tl.load(edited + at, inside, 0.0).to(tl.float32), 0.0, 1.0) - old_r)
            change_g += amount * (tl.clamp(tl.load(edited + plane + at, inside, 0.0).to(tl.float32), 0.0, 1.0) - old_g)
            change_b += amount * (tl.clamp(tl.load(edited + 2 * plane + at, inside, 0.0).to(tl.float32), 0.0, 1.0) - old_b)
            red += share * 255.0 * old_r
            green += share * 255.0 * old_g
            blue += share * 255.0 * old_b
    return change_r, change_g, change_b, replaced, red, green, blue


@triton.jit
def put(frame, out, frame_at, out_at, change, replaced, coarse, mask):
    """One byte of the frame: source + change - replaced * (source - coarse)."""
    source = tl.load(frame + frame_at, mask, 0).to(tl.float32)
    value = source + change - replaced * (source - coarse)
    tl.store(out + out_at, tl.floor(tl.clamp(value, 0.0, 255.0) + 0.5).to(tl.uint8), mask)


@triton.jit
def blend_rgb_kernel(
    frame, out, crop, edited, weight, feather, places, height, width, size, rectangle_width, rectangle_height,
    stride_b, stride_y, BLOCK: tl.constexpr,
):  # fmt: skip
    """frame, out uint8 [B, H, W, 3]; crop, edited [B, 3, S, S]; weight [B, S, S]; feather [S, S]; places float32 [B, 8]: the transform,
    then left and top of the rectangle. Programs: blocks of the rectangle x B."""
    b = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    places += b * 8
    x = tl.load(places + 6).to(tl.int32) + pixel % rectangle_width
    y = tl.load(places + 7).to(tl.int32) + pixel // rectangle_width
    mask = (pixel < rectangle_width * rectangle_height) & (x < width) & (y < height)
    picture = b * 3 * size * size
    change_r, change_g, change_b, replaced, red, green, blue = sample_layers(
        crop + picture, edited + picture, weight + b * size * size, feather, places, x.to(tl.float32), y.to(tl.float32), size, mask
    )
    frame_at = b * stride_b + y.to(tl.int64) * stride_y + x * 3
    out_at = (b * height + y) * width * 3 + x * 3
    put(frame, out, frame_at, out_at, change_r, replaced, red, mask)
    put(frame, out, frame_at + 1, out_at + 1, change_g, replaced, green, mask)
    put(frame, out, frame_at + 2, out_at + 2, change_b, replaced, blue, mask)


@triton.jit
def blend_nv12_kernel(
    frame, out, crop, edited, weight, feather, places, yuv_of_rgb, height, width, size, rectangle_width, rectangle_height,
    stride_b, stride_y, BLOCK: tl.constexpr,
):  # fmt: skip
    """As blend_rgb_kernel on frame, out uint8 [B, 3 * H / 2, W]; yuv_of_rgb float32 [3, 4]; left, top and the rectangle's sides are even.

    The blend is linear, so it is done on Y, U and V, and a byte that nothing reaches stays what it is.
    """
    b = tl.program_id(1).to(tl.int64)
    quad = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    places += b * 8
    column = tl.load(places + 6).to(tl.int32) // 2 + quad % (rectangle_width // 2)
    row = tl.load(places + 7).to(tl.int32) // 2 + quad // (rectangle_width // 2)
    mask = (quad < rectangle_width * rectangle_height // 4) & (column * 2 < width) & (row * 2 < height)
    picture = b * 3 * size * size
    frame += b * stride_b
    out += b * (height * width * 3 // 2)
    m = yuv_of_rgb
    zero = tl.zeros([BLOCK], tl.float32)
    change_u, change_v, replaced_sum, coarse_u, coarse_v = zero, zero, zero, zero, zero
    for j in tl.static_range(2):
        for i in tl.static_range(2):
            x, y = column * 2 + i, row * 2 + j
            change_r, change_g, change_b, replaced, red, green, blue = sample_layers(
                crop + picture, edited + picture, weight + b * size * size, feather, places, x.to(tl.float32), y.to(tl.float32), size, mask
            )
            change_y = tl.load(m) * change_r + tl.load(m + 1) * change_g + tl.load(m + 2) * change_b
            coarse_y = tl.load(m) * red + tl.load(m + 1) * green + tl.load(m + 2) * blue + tl.load(m + 3)
            put(frame, out, y.to(tl.int64) * stride_y + x, y.to(tl.int64) * width + x, change_y, replaced, coarse_y, mask)
            change_u += (tl.load(m + 4) * change_r + tl.load(m + 5) * change_g + tl.load(m + 6) * change_b) / 4
            change_v += (tl.load(m + 8) * change_r + tl.load(m + 9) * change_g + tl.load(m + 10) * change_b) / 4
            replaced_sum += replaced / 4
            coarse_u += replaced * (tl.load(m + 4) * red + tl.load(m + 5) * green + tl.load(m + 6) * blue + tl.load(m + 7)) / 4
            coarse_v += replaced * (tl.load(m + 8) * red + tl.load(m + 9) * green + tl.load(m + 10) * blue + tl.load(m + 11)) / 4
    frame_at = (height + row).to(tl.int64) * stride_y + column * 2
    out_at = (height + row).to(tl.int64) * width + column * 2
    put(frame, out, frame_at, out_at, change_u + coarse_u, replaced_sum, zero, mask)
    put(frame, out, frame_at + 1, out_at + 1, change_v + coarse_v, replaced_sum, zero, mask)
