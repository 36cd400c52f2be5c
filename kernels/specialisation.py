"""What is compiled ahead of time: one kernel at one shape, with all that a launch needs.

Every operation has `kernels/<operation>/specialisations.py` with one function:

    specialisations(preset: dict, batch: int, capability: int) -> list[Specialisation]

`preset` is what `flashlips_edge.models.presets.load_preset` gives, `capability` the chip's as a number (87 for sm_87): it chooses
the block sizes where a table in configurations.py has more than one. Tensors are fp16. An operation that a preset has no use
for gives an empty list. `kernels.launches.record` finds out what a host function launches, so that nothing is said twice.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Specialisation:
    """One `@triton.jit` function at one shape.

    operation, name: the folder in kernels/, and a name that no other of this preset, batch and capability has
                     (letters, digits, underscores: it becomes a file name)
    function:        the `@triton.jit` function itself
    types:           argument -> Triton type ("*fp16", "*fp32", "i32", "fp32") for every argument that is not constant
    constants:       argument -> value of every `tl.constexpr` argument
    aligned:         the pointers and integers that are known to be divisible by 16
    grid:            programs along x, y and z
    flops, bytes:    what the operation must at least compute, and read and write once
    cooperative:     all programs must run at once, because they wait for each other
    """

    operation: str
    name: str
    function: Any
    types: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...]
    grid: tuple[int, int, int]
    num_warps: int
    num_stages: int
    flops: int
    bytes: int
    cooperative: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name, re.ASCII):
            raise ValueError(f"the name {self.name!r} has other characters than letters, digits and underscores")
        named = [*self.types, *self.constants]
        wanted = list(self.function.arg_names)
        if sorted(named) != sorted(wanted):
            raise ValueError(f"{self.name}: types and constants name {sorted(named)}, the kernel takes {sorted(wanted)}")
        if unknown := set(self.aligned) - set(self.types):
            raise ValueError(f"{self.name}: aligned names {sorted(unknown)}, types has {sorted(self.types)}")


def operations() -> list[str]:
    """The folders of kernels/ that have specialisations."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/specialisations.py"))


def collect(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """Every kernel that `preset` needs at `batch` frames on a chip of `capability`."""
    modules = [importlib.import_module(f"kernels.{operation}.specialisations") for operation in operations()]
    return [each for module in modules for each in module.specialisations(preset, batch, capability)]
