"""What is compiled ahead of time of AdaLN: each shape of a preset's transformers, with and without a branch."""

from __future__ import annotations

from functools import partial
from typing import Any

from flashlips_edge.models.layers import AdaLN
from kernels.adaln.module import FusedAdaLN
from kernels.launches import record
from kernels.shapes import layer_calls
from kernels.specialisation import Specialisation


def specialisations(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """The kernel of every AdaLN that a pass over ``batch`` frames, or over a window of speech, runs; the same on every chip."""
    found = []
    for call in layer_calls(preset, batch, AdaLN):
        x, scale, _, branch, _ = call.arguments
        assert x is not None and scale is not None
        name = "adaln_" + "x".join(map(str, x.shape)) + ("_alike" if scale.shape[1] == 1 else "") + ("" if branch is None else "_branch")
        for launch in record(partial(FusedAdaLN.forward, call.layer, *call.arguments)):
            found.append(launch.specialise("adaln", name, (8 if branch is None else 10) * x.numel()))
    return found
