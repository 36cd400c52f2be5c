"""The chips that kernels are compiled for: limits of an SM, and the two rates that bound every kernel. The one table of chip facts.

Limits per compute capability: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". Rates are the vendor's
peaks, not measurements: memory bytes per second, and fp16 matrix products with fp32 sums, without sparsity.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from flashlips_edge.errors import UserError

REGISTERS = 65536  # of 32 bits, on one SM
REGISTERS_PER_THREAD = 255
SHARED_RESERVED = 1024  # bytes that the system takes of each block, from capability 8.0 on


@dataclass(frozen=True)
class Limits:
    """What one SM of a compute capability holds: resident warps and blocks, shared memory in bytes on the SM and for one block."""

    warps: int
    blocks: int
    shared: int
    shared_per_block: int


LIMITS = {
    87: Limits(48, 16, 164 << 10, 163 << 10),
    89: Limits(48, 24, 100 << 10, 99 << 10),
    90: Limits(64, 32, 228 << 10, 227 << 10),
    100: Limits(64, 32, 228 << 10, 227 << 10),
    110: Limits(48, 24, 228 << 10, 227 << 10),
    120: Limits(48, 24, 100 << 10, 99 << 10),
}


@dataclass(frozen=True)
class Chip:
    """One chip: its own name and the driver's, compute capability (87 is sm_87), SMs, bytes and FLOPs per second at most, and the
    newest PTX that its oldest supported driver reads (83 is PTX 8.3)."""

    name: str
    device: str
    reported: str
    capability: int
    processors: int
    bandwidth: float
    matmul: float
    ptx: int
    source: str

    @property
    def key(self) -> str:
        """The chip in a table of measurements."""
        return device_key(self.reported, self.processors)

    @property
    def limits(self) -> Limits:
        return LIMITS[self.capability]

    def seconds(self, flops: int, traffic: int) -> float:
        """The least time that these FLOPs and bytes of traffic can take here (the roofline: Williams et al. 2009)."""
        return max(flops / self.matmul, traffic / self.bandwidth)


def device_key(reported: str, processors: int) -> str:
    """A device in a table of measurements, by what the driver says of it."""
    return f"{reported}, {processors} SMs"


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("orin", "Jetson AGX Orin 64 GB", "Orin", 87, 16, 204.8e9, 42.5e12, 83, "AGX Orin Technical Brief: 170 sparse INT8 TOPS"),
        Chip("orin-nano", "Jetson Orin Nano 8 GB Super", "Orin", 87, 8, 102e9, 16.7e12, 83, "data sheet: 67 sparse INT8 TOPS"),
        Chip("ada", "L40S", "NVIDIA L40S", 89, 142, 864e9, 362e12, 83, "data sheet"),
        Chip("datacentre", "H200 SXM", "NVIDIA H200", 90, 132, 4.8e12, 989e12, 83, "data sheet, half of the rate with sparsity"),
        Chip("blackwell", "B200", "NVIDIA B200", 100, 148, 8e12, 2250e12, 87, "DGX B200 data sheet: one of eight, without sparsity"),
        Chip("thor", "Jetson T5000", "NVIDIA Thor", 110, 20, 273e9, 259e12, 90, "data sheet: an eighth of 2070 sparse FP4 TFLOPS"),
        Chip("rtx", "GeForce RTX 5090", "NVIDIA GeForce RTX 5090", 120, 170, 1792e9, 209.5e12, 87, "RTX Blackwell white paper, appendix A"),
    )
}


def find_chip(name: str) -> Chip:
    """The chip of target `name`. Raises UserError naming the targets there are."""
    if name not in CHIPS:
        near = difflib.get_close_matches(name, CHIPS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--target {name!r} is not one of {', '.join(CHIPS)}{hint}")
    return CHIPS[name]


@dataclass(frozen=True)
class Occupancy:
    """Blocks of a kernel that fit on one SM, the share of the SM's warps that they are, and what keeps more from fitting."""

    blocks: int
    share: float
    limited_by: str


def occupancy(limits: Limits, registers: int, shared: int, warps: int) -> Occupancy:
    """Occupancy from registers a thread, bytes of shared memory a block, and warps a block (CUDA's occupancy calculator).

    Registers are given to a warp 256 at a time.
    """
    per_warp = -(-max(registers, 1) * 32 // 256) * 256
    fits = {
        "warps": limits.warps // warps,
        "registers": REGISTERS // per_warp // warps,
        "shared memory": limits.shared // (shared + SHARED_RESERVED),
        "blocks": limits.blocks,
    }
    limited_by = min(fits, key=lambda name: fits[name])
    return Occupancy(fits[limited_by], fits[limited_by] * warps / limits.warps, limited_by)
