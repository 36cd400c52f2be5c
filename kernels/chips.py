"""The chips that kernels are compiled for: limits of an SM, and the two rates that bound every kernel. Facts: targets/<name>.yaml.

Limits of an SM: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability", and the same as NVIDIA's libcu++ has them
(cuda/__device/arch_traits.h, sm_87 to sm_120). Newest PTX of a driver: "Release Notes" of the PTX ISA. Rates are the vendor's peaks, not
measurements: memory bytes per second, and fp16 matrix products with fp32 sums, without sparsity.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from flashlips_edge.errors import UserError
from kernels.records import read_yaml, record

TABLES = Path(__file__).resolve().parent.parent / "targets"
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


@dataclass(frozen=True)
class Processor:
    """The same as a table has it, in KiB."""

    warps: int
    blocks: int
    shared_kib: int
    shared_per_block_kib: int


@dataclass(frozen=True)
class Facts:
    """The entry `chip` of a table. processors: SMs; fp16_tflops: matrix products with fp32 sums, without sparsity; ptx: the newest
    that its oldest supported driver reads (83 is PTX 8.3); power_modes: nvpmodel's names and numbers, none where there is no nvpmodel."""

    reported: str
    capability: int
    processors: int
    sm: Processor
    memory_gb: int
    bandwidth_gb_s: float
    fp16_tflops: float
    fp8: bool
    ptx: int
    power_modes: dict[str, int]
    source: str

    def __post_init__(self) -> None:
        for name in ("capability", "processors", "memory_gb", "bandwidth_gb_s", "fp16_tflops", "ptx"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name):g}")
        if self.fp8 != (self.capability >= 89):
            raise ValueError(f"fp8 is {str(self.fp8).lower()}, but chips have it from sm_89 on and this is sm_{self.capability}")
        if min(vars(self.sm).values()) <= 0 or self.sm.shared_per_block_kib >= self.sm.shared_kib:
            raise ValueError("sm: each entry must be more than 0, and shared_per_block_kib less than shared_kib")


@dataclass(frozen=True)
class Chip:
    """One chip: its own name and the driver's, compute capability (87 is sm_87), SMs, bytes and FLOPs per second at most, the newest PTX
    that its oldest supported driver reads, bytes of memory, whether it computes in FP8, and the power modes of a Jetson."""

    name: str
    device: str
    reported: str
    capability: int
    processors: int
    bandwidth: float
    matmul: float
    ptx: int
    memory: float
    fp8: bool
    power_modes: dict[str, int]
    limits: Limits
    source: str

    @property
    def key(self) -> str:
        """The chip in a table of measurements."""
        return device_key(self.reported, self.processors)

    def seconds(self, flops: int, traffic: int) -> float:
        """The least time that these FLOPs and bytes of traffic can take here (the roofline: Williams et al. 2009)."""
        return max(flops / self.matmul, traffic / self.bandwidth)


def read_chip(name: str, device: str, raw: object, where: str) -> Chip:
    """The chip of a table's entry `chip`. Raises UserError naming the entry that is wrong."""
    facts = record(Facts, raw, where)
    limits = Limits(facts.sm.warps, facts.sm.blocks, facts.sm.shared_kib << 10, facts.sm.shared_per_block_kib << 10)
    rates = {"bandwidth": 1e9 * facts.bandwidth_gb_s, "matmul": 1e12 * facts.fp16_tflops, "memory": 1e9 * facts.memory_gb}
    same = {key: getattr(facts, key) for key in ("reported", "capability", "processors", "ptx", "fp8", "power_modes", "source")}
    return Chip(name=name, device=device, limits=limits, **rates, **same)


def device_key(reported: str, processors: int) -> str:
    """A device in a table of measurements, by what the driver says of it."""
    return f"{reported}, {processors} SMs"


def _read_chips() -> dict[str, Chip]:
    tables = {path.stem: (str(path), read_yaml(path)) for path in TABLES.glob("*.yaml")}
    found = [read_chip(name, raw["device"], raw["chip"], f"{path}: chip") for name, (path, raw) in tables.items() if "chip" in raw]
    return {chip.name: chip for chip in sorted(found, key=lambda each: (each.capability, -each.processors))}


CHIPS = _read_chips()
LIMITS = {chip.capability: chip.limits for chip in CHIPS.values()}


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
