"""What is compiled ahead of time of flow_integrate: one window of speech of a preset's audio to lips, on all of a chip's processors."""

from __future__ import annotations

from typing import Any

from kernels.chips import CHIPS
from kernels.flow_integrate.integrate import integrate
from kernels.flow_integrate.kernel import PROGRAMS
from kernels.flow_integrate.weights import pack
from kernels.launches import record
from kernels.shapes import meta_networks
from kernels.specialisation import Specialisation


def specialisations(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """The persistent kernel; a window is one whatever ``batch``. It gets as many programs as the smallest chip of ``capability`` has
    processors, since all must run at once."""
    model: Any
    model, inputs = meta_networks(preset, 1)["audio_to_lips"]
    programs = min(PROGRAMS, *(chip.processors for chip in CHIPS.values() if chip.capability == capability))
    weights = pack(model)
    [launch] = record(lambda: integrate(model, weights, *inputs, programs=programs))
    modulation, rows = launch.tensors["modulation"], launch.tensors["x"].shape[0]
    passes = modulation.shape[0]
    read = sum(launch.tensors[name].numel() for name in ("qkv_weight", "project_weight", "widen_weight", "narrow_weight"))
    attention = 4 * len(weights.qkv_weight) * rows * (rows // 2) * weights.position.shape[1]
    name = f"flow_integrate_{passes}_{rows}x{weights.position.shape[1]}"
    traffic = 2 * (passes * read + modulation.numel())
    return [launch.specialise("flow_integrate", name, passes * (2 * rows * read + attention), traffic, {"guidance": "fp32"})]
