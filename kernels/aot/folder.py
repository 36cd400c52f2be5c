"""Compiled kernels as a folder: refused when a chip would run them badly, else written with their manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import triton

from flashlips_edge.engines.cubin import DTYPES, SCALARS, SCHEMA
from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes
from kernels.aot.compile import Compiled
from kernels.chips import REGISTERS, Chip, occupancy


def check(compiled: Iterable[Compiled], chip: Chip) -> None:
    """Raises UserError naming every kernel that spills, that no block of the chip can hold, or that waits for programs that
    cannot all run at once."""
    faults = []
    for kernel in compiled:
        name, limits = kernel.specialisation.name, chip.limits
        programs = kernel.specialisation.grid[0] * kernel.specialisation.grid[1] * kernel.specialisation.grid[2]
        blocks = occupancy(limits, kernel.registers, kernel.shared, kernel.warps).blocks
        if kernel.spilled:
            faults.append(f"{name} spills {kernel.spilled} bytes of registers")
        if kernel.shared > limits.shared_per_block:
            faults.append(f"{name} needs {kernel.shared} bytes of shared memory of {limits.shared_per_block}")
        elif not blocks:
            faults.append(f"{name} needs {kernel.registers * kernel.warps * 32} registers of {REGISTERS}")
        elif kernel.specialisation.cooperative and programs > blocks * chip.processors:
            faults.append(f"{name} waits for {programs} programs of which {blocks * chip.processors} run at once")
    if faults:
        raise UserError(f"--target {chip.name}: {'; '.join(faults)}; choose smaller blocks or fewer stages for sm_{chip.capability}")


def describe(kernel: Compiled, chip: Chip) -> dict[str, Any]:
    """One kernel's entry in the manifest."""
    specialisation = kernel.specialisation
    unknown = sorted(set(specialisation.types.values()) - {*DTYPES, *SCALARS})
    if unknown:
        raise ValueError(f"{specialisation.name}: the launcher has no argument of type {unknown[0]}")
    names = [name for name in specialisation.function.arg_names if name in specialisation.types]
    constants = {name: value if isinstance(value, (bool, int, float)) else str(value) for name, value in specialisation.constants.items()}
    digest = hashlib.sha256(kernel.cubin).hexdigest()
    fits = occupancy(chip.limits, kernel.registers, kernel.shared, kernel.warps)
    return {
        "name": specialisation.name,
        "operation": specialisation.operation,
        "cubin": f"{specialisation.name}.{digest[:8]}.cubin",
        "ptx": f"{specialisation.name}.{digest[:8]}.ptx",
        "sha256": digest,
        "entry": kernel.entry,
        "grid": list(specialisation.grid),
        "block": [32 * kernel.warps, 1, 1],
        "shared": kernel.shared,
        "hidden": kernel.hidden,
        "cooperative": specialisation.cooperative,
        "arguments": [{"name": n, "type": specialisation.types[n], "aligned": n in specialisation.aligned} for n in names],
        "constants": constants,
        "num_stages": specialisation.num_stages,
        "registers": kernel.registers,
        "spilled": kernel.spilled,
        "stack": kernel.stack,
        "occupancy": asdict(fits),
        "flops": specialisation.flops,
        "bytes": specialisation.bytes,
    }


def write(folder: Path, compiled: list[Compiled], chip: Chip, preset: str, batches: list[int]) -> dict[str, Any]:
    """Write cubins, PTX and manifest.json; gives the manifest.

    Files are named by their content and the manifest comes last, so that the folder is usable at every moment; what it no longer
    names is then removed.
    """
    entries = [describe(kernel, chip) for kernel in compiled]
    if doubles := {e["name"] for e in entries if sum(f["name"] == e["name"] for f in entries) > 1}:
        raise ValueError(f"two kernels have the name {sorted(doubles)[0]}")
    for kernel, entry in zip(compiled, entries):
        write_bytes(folder / entry["cubin"], kernel.cubin)
        write_bytes(folder / entry["ptx"], kernel.ptx.encode())
    manifest = {
        "schema": SCHEMA,
        "target": chip.name,
        "capability": chip.capability,
        "ptx_version": chip.ptx,
        "triton": triton.__version__,
        "preset": preset,
        "batches": batches,
        "kernels": entries,
    }
    write_bytes(folder / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
    kept = {entry[key] for entry in entries for key in ("cubin", "ptx")}
    for old in [*folder.glob("*.cubin"), *folder.glob("*.ptx")]:
        if old.name not in kept:
            old.unlink()
    return manifest
