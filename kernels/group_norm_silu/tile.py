"""What the forward and backward kernels share: where a tile lies in memory, and the modulation of its channels."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.precision import narrow


@triton.jit
def tile_offsets(b, c, p, hw, GROUPS: tl.constexpr, GROUP_CHANNELS: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Offsets of channels c at positions p of sample b in [B, C, h, w] memory of either format: [c, p]."""
    start = b.to(tl.int64) * (hw * GROUPS * GROUP_CHANNELS)
    if CHANNELS_LAST:
        offsets = start + c[:, None] + p[None, :] * (GROUPS * GROUP_CHANNELS)
    else:
        offsets = start + c[:, None] * hw + p[None, :]
    return offsets


@triton.jit
def load_affine(weight, bias, scale, shift, b, c, mask, stride_scale, stride_shift, MODULATED: tl.constexpr):
    """norm(x) * (1 + scale) + shift = normalised * factor + addend, per channel: factor, addend [c]."""
    factor = tl.load(weight + c, mask, 0.0).to(tl.float32)
    addend = tl.load(bias + c, mask, 0.0).to(tl.float32)
    if MODULATED:
        grow = 1.0 + tl.load(scale + b * stride_scale + c, mask, 0.0).to(tl.float32)
        addend = addend * grow + tl.load(shift + b * stride_shift + c, mask, 0.0).to(tl.float32)
        factor = factor * grow
    return factor, addend


@triton.jit
def load_sum(x, residual, total, offsets, mask, ADD: tl.constexpr):
    """x, or x + residual, which is also written; float32."""
    value = tl.load(x + offsets, mask, 0.0).to(tl.float32)
    if ADD:
        rounded = narrow(value + tl.load(residual + offsets, mask, 0.0).to(tl.float32), total.dtype.element_ty)
        tl.store(total + offsets, rounded, mask)
        value = rounded.to(tl.float32)
    return value
