"""python -m flashlips_edge.engines.build BUNDLE: on the device, the engine of a bundle that `make engine` made anywhere.

Compiles each graph strongly typed with this machine's TensorRT, reads the precision of every layer back and refuses an engine where too
many fell back to a wider one, runs the golden inputs, and writes the folder `engine` into the bundle.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flashlips_edge.arguments import Parser
from flashlips_edge.bundle import GRAPHS, Bundle
from flashlips_edge.engines import engine_folder, plugins
from flashlips_edge.engines.cuda import Device
from flashlips_edge.engines.layers import Built, compare
from flashlips_edge.engines.plans import Plan, Range, compile_plan, shape_ranges
from flashlips_edge.engines.tensorrt import TensorRtEngine, load_library
from flashlips_edge.errors import UserError

PROGRAM = "flashlips_edge.engines.build"


@dataclass(frozen=True)
class Wanted:
    """The bundle's entry `target`: what it was made for, and what an engine of it may be like (targets/<name>.yaml has the words)."""

    name: str
    engine: str
    device: str
    capability: int
    builds_for: tuple[str, ...]
    batch: int
    workspace_mb: int
    golden_error: float
    fallback_share: float

    @property
    def capabilities(self) -> list[int]:
        """Compute capabilities that one engine serves: those of `builds_for`, SM86 for example, or else the chip's own."""
        return [int(name.removeprefix("SM")) for name in self.builds_for] or [self.capability]

    @staticmethod
    def of(bundle: Bundle) -> Wanted:
        """UserError where the bundle has no such entry, or one that is malformed."""
        entry = bundle.manifest.get("target")
        if not isinstance(entry, dict):
            raise UserError(f"bundle {bundle.folder} was made for no device; make one with make engine TARGET=NAME")
        kinds = {"name": str, "engine": str, "device": str, "capability": int, "builds_for": list, "batch": int, "workspace_mb": int}
        kinds |= {"golden_error": float, "fallback_share": float}
        wrong = [key for key, kind in kinds.items() if type(entry.get(key)) is not kind]
        if wrong:
            raise UserError(f"bundle {bundle.folder}: the entry target.{wrong[0]} is missing or malformed; make the bundle again")
        values: dict[str, Any] = {key: tuple(entry[key]) if key == "builds_for" else entry[key] for key in kinds}
        return Wanted(**values)


@dataclass(frozen=True)
class Compiler:
    """Another way to an engine of the library than its own reader of ONNX. Layers then have other names than the graph's nodes: their
    precision is counted, and not compared with what was asked for."""

    name: str
    compile: Callable[[str, dict[str, Range], int], Plan]  # the graph's name, its shapes, megabytes of workspace


def build(bundle: Bundle, library: Any, device: Device, say: Callable[[str], None], compiler: Compiler | None = None) -> dict[str, Any]:
    """Build and write the engine; gives its manifest's graphs.

    UserError: another GPU than the bundle is for, a graph that the library refuses, too many layers in another precision, a golden
    error that is too large. The old engine is then as it was."""
    wanted, start = Wanted.of(bundle), time.monotonic()
    if device.capability not in wanted.capabilities:
        served = " or ".join(f"sm_{each}" for each in wanted.capabilities)
        raise UserError(
            f"bundle {bundle.folder} is for {wanted.device} ({served}) and this GPU, {device.name}, is sm_{device.capability}; "
            "make one for it with make engine TARGET=NAME"
        )
    if count := plugins.register(bundle, library):
        say(f"{count} kernels as plugins")
    plans, graphs, logs, timings = {}, {}, [], engine_folder.timings(bundle)
    for name in GRAPHS:
        say(f"{name}: compiling")
        ranges = shape_ranges(bundle, name, wanted.batch)
        if compiler is not None:
            plan = compiler.compile(name, ranges, wanted.workspace_mb)
        else:
            graph = plugins.graph_bytes(bundle, name)
            plan = compile_plan(library, graph, name, ranges, wanted.workspace_mb, wanted.builds_for, timings)
        timings = plan.timings or timings
        logs.append(f"== {name}\n{plan.log}\n")
        with TensorRtEngine(device, library, plan.image, f"the engine of {name}") as engine:
            asked = bundle.manifest["graphs"][name].get("nodes", {}) if compiler is None else {}
            built = _layers(name, asked, engine, wanted, say)
            error = golden_error(bundle, name, engine)
        if not error <= wanted.golden_error:
            raise UserError(
                f"graph {name}: the engine differs from the bundle's golden outputs by {error:.1%} of the largest, and "
                f"{wanted.golden_error:.0%} is allowed; nothing was written"
            )
        plans[name] = plan.image
        graphs[name] = {"precision": built.counts, "fallen": built.fallen, "golden_error": float(f"{error:.3g}")}
        say(f"{name}: {len(plan.image) / 1e6:.1f} MB, layers {mix(built.counts)}, golden error {error:.2%}")
    fields = {
        "library": library.__name__,
        "version": library.__version__,
        "gpu": "" if wanted.builds_for else device.name,
        "capabilities": wanted.capabilities,
        "driver": device.cuda,
        "compiler": compiler.name if compiler is not None else library.__name__,
        "seconds": round(time.monotonic() - start, 1),
        "built": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    engine_folder.write(bundle, fields, plans, graphs, timings, "".join(logs))
    return graphs


def golden_error(bundle: Bundle, name: str, engine: Any) -> float:
    """How far an engine is from the bundle's golden outputs, as a share of their largest; infinite where it gives no number."""
    inputs, expected = bundle.golden(name)
    given = engine.run(inputs)
    error = float(np.max([np.abs(given[key] - expected[key]).max() / np.abs(expected[key]).max() for key in expected]))
    return error if np.isfinite(error) else float("inf")


def mix(counts: dict[str, int]) -> str:
    """Layers by precision, in words."""
    return ", ".join(f"{count} {precision}" for precision, count in counts.items()) or "of unknown precision"


def _layers(name: str, asked: dict[str, str], engine: TensorRtEngine, wanted: Wanted, say: Callable[[str], None]) -> Built:
    try:
        built = compare(engine.layers(), asked)
    except ValueError as error:
        raise UserError(f"graph {name}: the engine's layers cannot be read back ({error}), so their precision is unknown") from None
    for node, precision in built.fallen.items():
        say(f"{name}: {node} was built in {precision}, {asked[node]} was asked for")
    if len(built.unknown) == len(asked) and asked:
        raise UserError(f"graph {name}: the inspector names none of the layers that matter, so their precision is unknown")
    if built.share > wanted.fallback_share:
        raise UserError(
            f"graph {name}: {len(built.fallen)} of {built.asked} layers were built in another precision than asked for, and "
            f"{wanted.fallback_share:.0%} is allowed; nothing was written"
        )
    return built


def main() -> int:
    """The exit status: 0, or 2 with one sentence."""
    parser = Parser(prog=f"python -m {PROGRAM}", description="The engine of a bundle, built on the device that runs it.")
    parser.add_argument("bundle", help="the bundle's folder, as make engine wrote it")
    try:
        options = parser.parse_args()
        bundle = Bundle.open(options.bundle)
        wanted = Wanted.of(bundle)
        if wanted.engine == "onnxruntime":
            print(f"{bundle.folder}: ONNX Runtime reads the bundle itself, there is nothing to build")
            return 0
        with Device() as device:
            start = time.monotonic()
            graphs = build(bundle, load_library(wanted.engine), device, lambda line: print(line, flush=True))
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    counts: Counter[str] = Counter()
    for entry in graphs.values():
        counts.update(entry["precision"])
    folder = bundle.folder / engine_folder.NAME
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB in {time.monotonic() - start:.0f} s, layers {mix(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
