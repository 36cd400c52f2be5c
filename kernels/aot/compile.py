"""One kernel at one shape: Triton to PTX, PTX to cubin, and what the assembler says about it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kernels.chips import Chip
from kernels.specialisation import Specialisation


@dataclass(frozen=True)
class Compiled:
    """A cubin and its PTX; `entry` is the kernel's name in them.

    warps, shared:  of one block; shared memory in bytes
    registers:      of one thread
    spilled, stack: bytes of one thread that the assembler moved to memory, and its stack frame
    hidden:         pointers that Triton appends to the arguments; null is a right value for each
    """

    specialisation: Specialisation
    cubin: bytes
    ptx: str
    entry: str
    warps: int
    shared: int
    registers: int
    spilled: int
    stack: int
    hidden: int


def compile_kernel(specialisation: Specialisation, chip: Chip) -> Compiled:
    """Compile for `chip`. The cubin is assembled here, so that the report is of the very bytes that are shipped.

    Raises RuntimeError when the kernel needs scratch memory, which no launch here gives.
    """
    # Line numbers would put this machine's paths into the cubin, and two builds would differ.
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = specialisation.function
    names = function.arg_names
    source = ASTSource(
        fn=function,
        signature={name: specialisation.types.get(name, "constexpr") for name in names},
        constexprs=specialisation.constants,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in specialisation.aligned},
    )
    options = {
        "num_warps": specialisation.num_warps,
        "num_stages": specialisation.num_stages,
        "ptx_version": chip.ptx,
        "launch_cooperative_grid": specialisation.cooperative,
    }
    kernel = triton.compile(source, target=GPUTarget("cuda", chip.capability, 32), options=options)
    if kernel.metadata.global_scratch_size:
        raise RuntimeError(f"{specialisation.name} needs {kernel.metadata.global_scratch_size} bytes of global scratch memory")
    ptx = kernel.asm["ptx"]
    cubin, log = assemble(ptx, chip.capability)
    return Compiled(
        specialisation,
        cubin,
        ptx,
        kernel.metadata.name,
        kernel.metadata.num_warps,
        kernel.metadata.shared,
        registers=_number(r"Used (\d+) registers", log),
        spilled=_number(r"(\d+) bytes spill stores", log) + _number(r"(\d+) bytes spill loads", log),
        stack=_number(r"(\d+) bytes stack frame", log),
        hidden=len(re.findall(r"^\s*\.param ", ptx.split(".entry", 1)[1].split("{", 1)[0], re.M)) - len(specialisation.types),
    )


def assemble(ptx: str, capability: int) -> tuple[bytes, str]:
    """The cubin of `ptx`, and what Triton's own ptxas reports."""
    import triton

    program = Path(triton.__file__).parent / "backends/nvidia/bin" / ("ptxas-blackwell" if capability >= 100 else "ptxas")
    architecture = re.findall(r"^\.target (sm_\w+)", ptx, re.M)[0]
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        command = [str(program), "-v", "--regAllocOptLevel=2", f"--gpu-name={architecture}", source.name, "-o", cubin.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"ptxas refused the kernel: {done.stderr.strip()}")
        return cubin.read_bytes(), done.stderr


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"ptxas did not report {pattern!r}: {text.strip()}")
    return int(found[1])
