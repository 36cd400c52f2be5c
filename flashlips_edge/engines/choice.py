"""Which engine runs a bundle's graphs on this machine: the TensorRT engine built for it, ONNX Runtime on the GPU, or on the CPU.

What falls short of what the bundle was made for is said once, as a warning of the logger `flashlips_edge`. An engine that was built and
does not match this machine, or answers its golden input wrongly, is refused.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from functools import cache
from typing import Any, Protocol

import numpy as np
import onnxruntime

from flashlips_edge.bundle import GRAPHS, Bundle
from flashlips_edge.engines import engine_folder
from flashlips_edge.engines.build import golden_error
from flashlips_edge.engines.cuda import Device
from flashlips_edge.engines.engine_folder import EngineFolder
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
from flashlips_edge.engines.tensorrt import TensorRtEngine, load_library
from flashlips_edge.errors import UserError

BUNDLES_KEPT = 2  # whose networks stay loaded for the next who opens them
GOLDEN_ERROR = 0.05  # of a bundle that says nothing else

_lock = threading.Lock()
_loaded: OrderedDict[tuple[Any, ...], Engine] = OrderedDict()


class Engine(Protocol):
    """One loaded graph. Shapes by tensor name; a free axis is not a number. `seconds` and `runs` are since it was loaded."""

    input_shapes: dict[str, tuple[Any, ...]]
    output_shapes: dict[str, tuple[Any, ...]]
    runs: int
    seconds: float

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...


def shared_engine(bundle: Bundle, graph: str, threads: int) -> Engine:
    """The engine of a graph, one for all who run it in this process. Raises UserError where what was built for it is refused."""
    manifest = bundle.folder / engine_folder.NAME / "manifest.json"
    built = manifest.stat().st_mtime_ns if manifest.is_file() else 0
    key = (bundle.graph_path(graph), bundle.manifest["files"][bundle.manifest["graphs"][graph]["file"]], built, threads)
    with _lock:
        if key not in _loaded:
            _loaded[key] = open_engine(bundle, graph, threads)
            while len(_loaded) > len(GRAPHS) * BUNDLES_KEPT:
                _loaded.popitem(last=False)
        _loaded.move_to_end(key)
        return _loaded[key]


def open_engine(bundle: Bundle, graph: str, threads: int) -> Engine:
    """The best engine that there is here for a graph."""
    folder = EngineFolder.open(bundle)
    if folder is not None and graph in folder.graphs:
        return _tensorrt(folder, graph)
    on_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    wanted = (bundle.manifest.get("target") or {}).get("engine", "onnxruntime")
    if wanted != "onnxruntime" or on_gpu:
        where = "on the GPU through ONNX Runtime" if on_gpu else "on the CPU"
        _say(f"the networks of {bundle.folder} run {where}: no TensorRT engine was built for them; {engine_folder.again(bundle)}")
    fused = bundle.manifest.get("quantisation", {}).get("format") != "fp8"  # which ONNX Runtime computes only as it is written
    image = bundle.read(bundle.manifest["graphs"][graph]["file"])
    return OnnxRuntimeEngine(bundle.graph_path(graph), threads, fused, on_gpu, image)


def _tensorrt(folder: EngineFolder, graph: str) -> Engine:
    device, library = _device(), load_library(folder.manifest["library"])
    folder.check(library.__version__, device.name, device.capability)
    engine = TensorRtEngine(device, library, folder.plan(graph), f"the engine of {graph} in {folder.bundle.folder}")
    allowed = (folder.bundle.manifest.get("target") or {}).get("golden_error", GOLDEN_ERROR)
    if not (error := golden_error(folder.bundle, graph, engine)) <= allowed:
        raise UserError(
            f"the engine of {graph} in {folder.bundle.folder} differs from its golden outputs by {error:.1%} of the largest, and "
            f"{allowed:.0%} is allowed; {engine_folder.again(folder.bundle)}"
        )
    return engine


@cache
def _device() -> Device:
    """The GPU, for as long as the process lives."""
    return Device()


@cache
def _say(sentence: str) -> None:
    logging.getLogger("flashlips_edge").warning(sentence)
