"""python -m targets.build TARGET: a device's bundle, made anywhere, and where it can be its engine.

export -> low precision -> kernels -> bundle -> engine. Each result is kept, so that a killed run goes on and a second one takes seconds;
the same inputs give the same bytes; what stands in the place of the result stays usable until the new one is whole.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.bundle import GRAPHS, Bundle, write_manifest
from flashlips_edge.engines import build as device_build
from flashlips_edge.engines import engine_folder
from flashlips_edge.engines.cuda import Device
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
from flashlips_edge.engines.plans import compile_plan, shape_ranges
from flashlips_edge.engines.plugins import FOLDER
from flashlips_edge.engines.tensorrt import load_library
from flashlips_edge.errors import UserError
from flashlips_edge.folders import only_one, put
from flashlips_edge.models import presets
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.ship import CONSTANTS, NETWORKS
from kernels.chips import TABLES
from kernels.precision import INTERPRETED
from kernels.table import LOW, Target, find_target, names
from quantize import calibration
from targets import nodes, remote
from targets.stages import Stages, code, digest, digests, versions

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("work/targets")
AS_INITIALISED = "none"  # of weights
EXPORTED = (*(f"{name}.safetensors" for name in NETWORKS), CONSTANTS, "MODEL_CARD.md")  # of what training leaves in a folder of weights
NO_LOW = "none"  # of formats
DRAWN, RECORDINGS = "the synthetic head", "recorded faces"


@dataclass(frozen=True)
class Order:
    """What is to be built. `weights` is None for networks as initialised, `form` None where nothing goes to low precision, `videos`
    None where it is calibrated on the synthetic head."""

    target: Target
    preset: str
    weights: Path | None
    form: str | None
    videos: Path | None
    out: Path
    plugins: bool = False  # kernels of ours in the engine

    @property
    def drawn(self) -> bool:
        """Whether it is calibrated on the synthetic head."""
        return self.form is not None and self.videos is None


def main() -> None:
    parser = Parser(prog="python -m targets.build", description="A device's bundle and engine.")
    parser.add_argument("target", help=", ".join(names()))
    parser.add_argument("--preset", help="network sizes; the target's own unless named")
    parser.add_argument("--weights", help="folder of trained weights, weights/PRESET unless named; none: networks as initialised")
    parser.add_argument("--format", help=f"low precision: {', '.join(LOW)}, or none; the target's first unless named")
    parser.add_argument("--calibration", type=Path, help="folder of videos; else the recorded data, else the synthetic head")
    parser.add_argument("--plugins", action="store_true", help="kernels of ours in the engine, for TensorRT 10.9 and later")
    parser.add_argument("--torch-tensorrt", action="store_true", help="on the server itself: its engine by torch-tensorrt")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder that receives TARGET/PRESET, {OUT} unless named")
    parser.add_argument("--host", help="user@device: send the bundle there over ssh and build the engine")
    options = parser.parse_args()
    if options.host:
        remote.check_host(options.host)
    order = ordered(options.target, options.preset, options.weights, options.format, options.calibration, options.out)
    if options.plugins:
        order = with_plugins(order)
    by_torch = torch_compiler(order) if options.torch_tensorrt else None
    with only_one(order.out):
        start = time.monotonic()
        bundle, cached = build(order, lambda line: print(line, flush=True))
        summary(bundle, cached, time.monotonic() - start)
    if options.host:
        remote.build_there(bundle.folder, options.host)
    else:
        rest(order.target, bundle, by_torch(bundle) if by_torch is not None else None)


def ordered(target: str, preset: str | None, weights: str | None, form: str | None, videos: Path | None, out: Path) -> Order:
    """The checked order. UserError for what is wrong with it."""
    found = find_target(target, "TARGET")
    preset = preset or found.preset
    load_preset(preset)
    folder = None if weights == AS_INITIALISED else Path(weights) if weights else ROOT / "weights" / preset
    if folder is not None and not folder.is_dir():
        if weights:
            raise UserError(f"--weights {folder}: no such folder; name one that training wrote, or none for networks as initialised")
        raise UserError(
            f"--weights is missing: preset {preset} has no trained weights here; take PRESET=nano (--preset nano), which has, or train "
            f"them with python -m flashlips_edge.training --preset {preset} --work work/{preset} --out work/{preset}/bundle and name them: "
            f"WEIGHTS=work/{preset}/{preset} (--weights work/{preset}/{preset})"
        )
    if form not in (None, NO_LOW, *found.precision.formats):
        raise UserError(f"--format {form}: target {target} takes {', '.join(found.precision.formats)} or none")
    if form is None:
        form = NO_LOW if folder is None else found.precision.formats[0]
    if form == NO_LOW:
        return Order(found, preset, folder, None, None, out)
    if videos is None:
        try:
            videos = calibration.default_folder()
        except UserError:
            if "FLASHLIPS_DATA" in os.environ:
                raise
    else:
        calibration.videos_in(videos)  # which says what is wrong with it
    return Order(found, preset, folder, form, videos, out)


def with_plugins(order: Order) -> Order:
    """The order, with kernels as plugins. UserError for a target whose engine takes none."""
    if order.target.engine != "tensorrt":
        raise UserError(f"--plugins: target {order.target.name} has the engine {order.target.engine}, and only tensorrt takes plugins")
    return replace(order, plugins=True)


def torch_compiler(order: Order) -> Callable[[Bundle], device_build.Compiler]:
    """What makes the compiler of a bundle's engine that torch-tensorrt is. UserError where it cannot be it, before anything is built."""
    if order.target.engine != "tensorrt" or order.plugins:
        what = f"target {order.target.name} has the engine {order.target.engine}" if not order.plugins else "it knows nothing of --plugins"
        raise UserError(f"--torch-tensorrt: {what}; leave one of them away")
    from targets import from_torch

    library = from_torch.load()
    if not _is_device(order.target):
        raise UserError(f"--torch-tensorrt builds where the engine is to run, on {order.target.device}, and this is another machine")
    return lambda bundle: from_torch.compiler(library, bundle, order.target.precision.rest, order.weights)


def build(order: Order, say: Callable[[str], None]) -> tuple[Bundle, bool]:
    """The bundle, and whether it was there already, made of the same inputs."""
    folder = order.out / order.target.name / order.preset
    inputs = all_inputs(order)
    for half_made in (*order.out.glob("stages/.bundle.*"), *order.out.glob(".assembly*")):
        shutil.rmtree(half_made)
    if (found := _finished(folder, digest(inputs))) is not None:
        return found, True
    stages = Stages(order.out / "stages", 3 + (order.target.chip is not None) + order.drawn, say)
    stages.folder.mkdir(parents=True, exist_ok=True)
    exported = stages.run(f"export-{order.preset}", inputs["export"], lambda place: _export(order, place))
    videos = order.videos
    if order.drawn:
        say(f"no recorded faces to calibrate on: {DRAWN} serves, real ones come out better with CALIBRATION=folder of videos")
        videos = stages.run("videos", inputs["videos"], _draw)
    source = inputs["precision"] | {"source": engine_folder.digest_of(Bundle.open(exported))}
    lower = stages.run(f"precision-{order.target.name}-{order.preset}", source, lambda place: _lower(order, exported, videos, place))
    cubins = None
    if order.target.chip is not None:
        cubins = stages.run(f"kernels-{order.target.name}-{order.preset}", inputs["kernels"], lambda place: _kernels(order, place))
    say(f"[{stages.count}/{stages.count}] bundle")
    assembly = order.out / f".assembly-{order.target.name}-{order.preset}"
    bundle = _assemble(order, lower, cubins, assembly, digest(inputs))
    if order.target.engine == "tensorrt_rtx":
        _compile_anywhere(bundle, order.target, say)
    folder.parent.mkdir(exist_ok=True)
    put(assembly, folder)
    return Bundle.open(folder), False


def all_inputs(order: Order) -> dict[str, Any]:
    """What each stage's result depends on: weights, sizes, tables, code, versions."""
    weights = digests((path for name in EXPORTED if (path := order.weights / name).is_file()), order.weights) if order.weights else {}
    preset = digests([presets.FOLDER / f"{order.preset}.yaml"], presets.FOLDER)
    tools = versions("torch", "onnx", "numpy")
    shared = ("flashlips_edge/*.py", "flashlips_edge/engines/*.py")
    export = {
        "weights": weights,
        "preset": preset,
        "tools": tools,
        "code": code(ROOT, "flashlips_edge/models/*.py", "flashlips_edge/training/*.py"),
    }
    table = digests([TABLES / f"{order.target.name}.yaml"], TABLES)
    videos: dict[str, Any] = digests(calibration.videos_in(order.videos), order.videos) if order.videos is not None else {}
    if order.drawn:
        head = code(ROOT, "targets/drawn.py", "flashlips_edge/training/synthetic_head/*.py")
        videos = {"code": head, "tools": versions("av", "numpy", "soxr")}
    precision = {
        "table": table,
        "form": order.form,
        "videos": videos,
        "tools": versions("onnxruntime", "nvidia-modelopt", "opencv-python-headless"),
        "code": code(ROOT, "quantize/*.py", "targets/plain.py", "flashlips_edge/talking/*.py", "flashlips_edge/face/*.py"),
    }
    kernels = {"preset": preset, "table": table, "tools": versions("triton", "torch"), "code": code(ROOT, "kernels/**/*.py")}
    return {
        "export": export,
        "videos": videos,
        "precision": precision,
        "kernels": kernels if order.target.chip else {},
        "tools": versions("tensorrt_rtx") if order.target.engine == "tensorrt_rtx" else {},
        "plugins": kernels if order.plugins else {},
        "code": code(ROOT, "targets/*.py", *shared),
    }


def _finished(folder: Path, key: str) -> Bundle | None:
    """The bundle in `folder` if it is whole and was made of these inputs."""
    try:
        bundle = Bundle.open(folder) if folder.is_dir() else None
    except UserError:
        return None  # not whole: it is made again
    return bundle if bundle is not None and bundle.manifest.get("build") == key else None


def _export(order: Order, place: Path) -> None:
    import torch

    from flashlips_edge.training.export import export

    torch.manual_seed(0)  # of networks as initialised
    export(order.preset, order.weights, place)


def _draw(place: Path) -> None:
    from targets.drawn import draw

    work = place.with_name(f".{place.name}.work")
    draw(work)
    work.rename(place)


def _lower(order: Order, exported: Path, videos: Path | None, place: Path) -> None:
    precision, limits = order.target.precision, order.target.limits
    source = Bundle.open(exported)
    if order.form is None or videos is None:
        from targets.plain import convert

        convert(source, precision.rest, limits.golden_error, place)
        return
    from quantize import build as quantisation
    from quantize.policy import Budget
    from quantize.targets import of

    budget = Budget(mouth_db=limits.mouth_db)
    quantisation.build(source, order.target.name, of(order.target), order.form, videos, budget, place)


def _kernels(order: Order, place: Path) -> None:
    from kernels.aot.compile import compile_kernel
    from kernels.aot.folder import check, write
    from kernels.specialisation import collect

    if INTERPRETED.value:
        raise UserError("TRITON_INTERPRET is set, and interpreted kernels cannot be compiled: unset it")
    chip = order.target.chip
    assert chip is not None
    wanted = collect(load_preset(order.preset), 1, chip.capability)
    compiled = [compile_kernel(each, chip) for each in tqdm(wanted, "kernels", unit="kernel", leave=False)]
    check(compiled, chip)
    work = place.with_name(f".{place.name}.work")
    write(work, compiled, chip, order.preset, [1])
    work.rename(place)


def _assemble(order: Order, lower: Path, cubins: Path | None, assembly: Path, key: str) -> Bundle:
    """The bundle of a device: graphs, cubins, and what the device shall hold the engine to."""
    target, limits = order.target, order.target.limits
    source = Bundle.open(lower)
    shutil.copytree(lower, assembly)
    if cubins is not None:
        shutil.copytree(cubins, assembly / "cubins")
    if order.plugins and target.chip is not None:
        from targets import plugins

        plugins.write(source, target.chip, assembly / FOLDER)
    entries = {}
    for name, entry in source.manifest["graphs"].items():
        model = onnx.load(str(source.graph_path(name)))
        if (opset := nodes.opset(model)) > target.opset:
            raise UserError(
                f"graph {name} is written in opset {opset}, and the engine of target {target.name} reads {target.opset} at most"
            )
        entries[name] = entry | {"opset": opset, "nodes": nodes.asked(model)}
    fields = {key: value for key, value in source.manifest.items() if key not in ("schema", "files", "graphs")}
    wanted = {
        "name": target.name,
        "device": target.device,
        "engine": target.engine,
        "capability": target.chip.capability if target.chip else 0,
        "builds_for": list(target.builds_for),
        "batch": limits.batch,
        "workspace_mb": limits.workspace_mb,
        "golden_error": float(limits.golden_error),
        "fallback_share": float(limits.fallback_share),
        "calibrated_on": DRAWN if order.drawn else RECORDINGS if order.form else None,
    }
    write_manifest(assembly, fields | {"graphs": entries, "targets": [target.name], "target": wanted, "build": key})
    bundle = Bundle.open(assembly)
    for name in GRAPHS:
        engine = OnnxRuntimeEngine(bundle.graph_path(name), fuse_quantised=target.engine == "onnxruntime")
        error = device_build.golden_error(bundle, name, engine)
        if not error <= (allowed := bundle.manifest["graphs"][name].get("golden_tolerance", limits.golden_error)):
            raise UserError(f"graph {name}: its golden outputs come out {error:.1%} of the largest apart, and {allowed:.1%} is allowed")
    return bundle


def _compile_anywhere(bundle: Bundle, target: Target, say: Callable[[str], None]) -> None:
    """TensorRT-RTX compiles without a GPU, for several; what needs one, the layers' precision and the golden check, is the device's."""
    library, start = load_library(target.engine), time.monotonic()
    plans: dict[str, bytes] = {}
    graphs: dict[str, dict[str, Any]] = {}
    logs = []
    for name in GRAPHS:
        ranges = shape_ranges(bundle, name, target.limits.batch)
        plan = compile_plan(library, bundle.graph_path(name).read_bytes(), name, ranges, target.limits.workspace_mb, target.builds_for)
        plans[name], graphs[name] = plan.image, {"precision": {}, "golden_error": None}
        logs.append(f"== {name}\n{plan.log}\n")
        say(f"engine of {name}: {len(plan.image) / 1e6:.1f} MB for {', '.join(target.builds_for)}")
    fields = {
        "library": target.engine,
        "version": library.__version__,
        "gpu": "",
        "capabilities": [int(each.removeprefix("SM")) for each in target.builds_for],
        "driver": 0,
        "seconds": round(time.monotonic() - start, 1),
    }
    engine_folder.write(bundle, fields, plans, graphs, b"", "".join(logs))


def summary(bundle: Bundle, cached: bool, seconds: float) -> None:
    """Path, size, time, and the precision of what the networks compute."""
    size = sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file())
    counts: Counter[str] = Counter()
    for entry in bundle.manifest["graphs"].values():
        counts.update(entry["nodes"].values())
    kernels = bundle.folder / "cubins" / "manifest.json"
    compiled = f", {len(json.loads(kernels.read_text())['kernels'])} kernels" if kernels.is_file() else ""
    how = f"as it was, its inputs are the same ({seconds:.0f} s)" if cached else f"{seconds:.0f} s"
    seen = f", calibrated on {DRAWN}" if bundle.manifest["target"]["calibrated_on"] == DRAWN else ""
    print(f"{bundle.folder}: {size / 1e6:.1f} MB, layers {device_build.mix(dict(sorted(counts.items())))}{seen}{compiled}, {how}")


def rest(target: Target, bundle: Bundle, compiler: device_build.Compiler | None = None) -> None:
    """What is left to do, or what can be done with it now; where this machine is the device, its engine."""
    run = f"python -m flashlips_edge.run --bundle {bundle.folder} --avatar FACE.mp4 --audio SPEECH.wav"
    command = f"python -m flashlips_edge.engines.build {bundle.folder}"
    if target.engine == "onnxruntime":
        print(f"it runs here: {run}")
    elif target.engine == "tensorrt_rtx":
        cards = " or ".join(target.builds_for)
        print(f"its engine is built; copy the folder to a PC with {cards}, pip install 'flashlips-edge[rtx]', then {run}")
    elif _is_device(target):
        print("this is the device: its engine")
        with Device() as device:
            device_build.build(bundle, load_library(target.engine), device, lambda line: print(line, flush=True), compiler)
    else:
        print(f"what is left is done on the device ({target.device}): copy the folder there, then {command}")
        print(f"or from here: make engine TARGET={target.name} HOST=user@device")


def _is_device(target: Target) -> bool:
    if importlib.util.find_spec(target.engine) is None or target.chip is None:
        return False
    try:
        with Device() as device:
            return device.capability == target.chip.capability
    except UserError:
        return False


if __name__ == "__main__":
    with one_sentence("targets.build"):
        main()
