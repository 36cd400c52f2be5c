"""A bundle whose graphs are all in the target's higher precision: where nothing is to be quantised."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx

from flashlips_edge.bundle import Bundle, write_manifest
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
from flashlips_edge.errors import UserError
from quantize import fp16


def convert(source: Bundle, rest: str, tolerance: float, out: Path) -> None:
    """Write `out`: graphs in `rest`, which must give the source's golden outputs within `tolerance` of the largest.

    UserError naming the graph that does not."""
    work = out.with_name(f".{out.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source.folder, work)
    entries = {}
    for name, entry in source.manifest["graphs"].items():
        path = work / entry["file"]
        if rest == "fp16":
            path.write_bytes(fp16.convert(onnx.load(str(path))).SerializeToString(deterministic=True))
        inputs, expected = source.golden(name)
        outputs = OnnxRuntimeEngine(path).run(inputs)
        error = max(float(np.abs(outputs[key] - expected[key]).max() / np.abs(expected[key]).max()) for key in expected)
        if not error <= tolerance:
            raise UserError(
                f"graph {name}: in {rest} it differs from fp32 by {error:.1%} of the largest output, {tolerance:.0%} is allowed"
            )
        arrays = {f"in.{key}": value for key, value in inputs.items()} | {f"out.{key}": value for key, value in outputs.items()}
        np.savez_compressed(work / "golden" / f"{name}.npz", **arrays)
        entries[name] = entry | {"precision": rest, "golden_error": float(f"{error:.3g}"), "golden_tolerance": tolerance}
    fields = {key: value for key, value in source.manifest.items() if key not in ("schema", "files", "graphs")}
    write_manifest(work, fields | {"graphs": entries})
    work.rename(out)
