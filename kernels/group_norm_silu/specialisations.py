"""What is compiled ahead of time of GroupNorm + SiLU: one or two kernels for each shape of a preset's networks."""

from __future__ import annotations

from functools import partial
from typing import Any

from flashlips_edge.models.layers import GroupNormSiLU
from kernels.group_norm_silu.module import FusedGroupNormSiLU
from kernels.launches import record
from kernels.shapes import layer_calls
from kernels.specialisation import Specialisation

FLOPS = {"group_norm_silu_one_pass": 13, "group_statistics": 4, "group_apply": 9}  # for each element


def specialisations(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """The kernels of every GroupNorm + SiLU that a pass over ``batch`` frames runs; the same on every chip."""
    found = {}  # by name: the statistics of a shape are the same with modulation and without
    for call in layer_calls(preset, batch, GroupNormSiLU):
        x = call.arguments[0]
        assert x is not None
        for launch in record(partial(FusedGroupNormSiLU.forward, call.layer, *call.arguments)):
            kernel = launch.function.__name__
            name = f"{kernel}_{'x'.join(map(str, x.shape))}" + ("_modulated" if launch.arguments.get("MODULATED") else "")
            found[name] = launch.specialise("group_norm_silu", name, FLOPS[kernel] * x.numel())
    return list(found.values())
