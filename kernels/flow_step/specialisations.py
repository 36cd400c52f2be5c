"""What is compiled ahead of time of flow_step: one window of speech of a preset's audio to lips."""

from __future__ import annotations

from typing import Any

import torch

from flashlips_edge.models.layers import LIPS
from kernels.flow_step.kernel import flow_step
from kernels.launches import record
from kernels.specialisation import Specialisation


def specialisations(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """The one kernel; a window is one whatever ``batch``, and the same on every chip. The step's size and guidance stay arguments."""
    sizes = preset["audio_to_lips"]
    window, earlier, width = sizes["window"], sizes["previous"], sizes["width"]

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=torch.float16, device="meta")

    tensors = empty(1, window, LIPS), empty(2, window, LIPS), 0.1, 1.0, empty(width, LIPS), empty(width)
    [launch] = record(lambda: flow_step(*tensors, empty(2, earlier, width), empty(1, earlier + window, width)))
    name, flops = f"flow_step_{earlier}_{window}x{width}", 2 * window * LIPS * width
    return [launch.specialise("flow_step", name, flops, numbers={"size": "fp32", "guidance": "fp32"})]
