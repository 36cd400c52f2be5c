"""A Triton kernel compiled, launched and checked on this machine's GPU, without torch: what the doctor tries."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np

from flashlips_edge.engines.cubin import SCHEMA, CubinKernels
from flashlips_edge.engines.cuda import Device

COUNT, BLOCK, WARPS = 1000, 256, 4


def launch(capability: int) -> None:
    """Raises RuntimeError when the kernel's result is wrong, and what Triton and the launcher raise."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    @triton.jit
    def double(x, y, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y + at, 2 * tl.load(x + at, at < count), at < count)

    types = {"x": "*fp32", "y": "*fp32", "count": "i32"}
    source = ASTSource(fn=double, signature={**types, "BLOCK": "constexpr"}, constexprs={"BLOCK": BLOCK}, attrs={})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": WARPS})
    image = compiled.asm["cubin"]
    entry = {
        "name": "double",
        "operation": "double",
        "cubin": "double.cubin",
        "sha256": hashlib.sha256(image).hexdigest(),
        "entry": compiled.metadata.name,
        "grid": [-(-COUNT // BLOCK), 1, 1],
        "block": [32 * WARPS, 1, 1],
        "shared": compiled.metadata.shared,
        "hidden": 2,
        "cooperative": False,
        "arguments": [{"name": name, "type": kind, "aligned": False} for name, kind in types.items()],
    }
    given = np.arange(COUNT, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder, Device() as device:
        (Path(folder) / "double.cubin").write_bytes(image)
        (Path(folder) / "manifest.json").write_text(json.dumps({"schema": SCHEMA, "capability": capability, "kernels": [entry]}))
        kernels = CubinKernels(folder)
        x, y = device.array(given.shape, given.dtype), device.array(given.shape, given.dtype)
        stream = device.stream(device)
        device.copy_in(x, given, stream)
        kernels.launch("double", {"x": x, "y": y, "count": COUNT}, stream)
        result = device.copy_out(y, stream)
        kernels.close()
    if not np.array_equal(result, 2 * given):
        raise RuntimeError("a kernel that doubles numbers does not")
