"""Rounding and dot products that are right on a GPU and under Triton's interpreter, which gets bfloat16 wrong."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """float32 to dtype, to the nearest: the interpreter cuts bfloat16 off instead, so there it is rounded on its bits."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        narrowed = bits.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        narrowed = x.to(dtype)
    return narrowed


@triton.jit
def dot(a, b, total):
    """total + a @ b in float32; never TF32. The interpreter's bfloat16 product is wrong: there both are widened first."""
    if INTERPRETED:
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total)
    else:
        total = tl.dot(a, b, total, input_precision="ieee")
    return total
