"""What is compiled ahead of time of the lips convolution: the first convolution of a preset's editors."""

from __future__ import annotations

from functools import partial
from typing import Any

from flashlips_edge.models.layers import LipsConv
from kernels.launches import record
from kernels.lips_conv.module import FusedLipsConv
from kernels.shapes import layer_calls
from kernels.specialisation import Specialisation


def specialisations(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """The kernel of every lips convolution that a pass over ``batch`` frames runs; the same on every chip."""
    found = []
    for call in layer_calls(preset, batch, LipsConv):
        x = call.arguments[0]
        assert x is not None
        b, channels, h, w = x.shape
        out = call.layer.weight.shape[0]
        flops = 2 * b * out * (channels * 9 * h * w + 9 * 12 + 9 * h * w // 2)  # the map's taps, the vector's, and their sum
        for launch in record(partial(FusedLipsConv.forward, call.layer, *call.arguments)):
            found.append(launch.specialise("lips_conv", f"lips_conv_{b}x{channels}x{h}x{w}_to_{out}", flops))
    return found
