"""What a frame takes on this machine, with a target's bundle, and a prediction of what it takes on the devices that are not here.

    make bench TARGET=cpu            # out/engines-cpu-nano.json and .png

Frame by frame, as on a live run: decode the video, find and cut the face, encode, edit and decode its crop, paste it back, one frame at a
time; then each graph by itself at batch 1. `cold` is a new process up to its first frame, `warm` the first frame of a second face in a
process that has the networks. Worth something only while nothing else runs.

A prediction is the sum over a graph's convolutions and products of max(FLOPs / rate, bytes / bandwidth), with the vendor's peaks, and
over its kernels of what one costs beside its work: as in a CUDA graph that is replayed, which is how the TensorRT engine runs it, and as
launched one by one. Pointwise operations are taken as fused into the kernel before them, and the peaks as reached: devices will be slower.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tqdm import tqdm

from flashlips_edge import prepare
from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.bundle import GRAPHS, Bundle
from flashlips_edge.engines.choice import Engine, shared_engine
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import flops
from flashlips_edge.examinations import gpus
from flashlips_edge.files import atomic_path, write_bytes
from flashlips_edge.media.audio_file import read_sound
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.talking.talker import Talker
from kernels.chips import Chip
from kernels.table import Target, find_target, names
from quantize.graph import HEAVY, Probe, copy
from targets.build import OUT
from targets.nodes import asked

ASSETS = Path(prepare.__file__).parent / "assets"
PICTURE_GRAPHS = ("latent_encoder", "editor", "latent_decoder")  # once for each frame
STAGES = ("decode", "face", "networks", "paste")
BYTES = {"int8": 1, "fp8": 1, "fp16": 2, "fp32": 4}
# Measured on empty kernels by others, on a laptop's GeForce RTX 5070 Ti: https://github.com/ahrefs/ocannl/issues/488. Taken for every chip.
REPLAY_US, REPLAYED_US, LAUNCHED_US = 15.0, 0.58, 6.4  # a graph's replay and each kernel in it; a kernel launched by itself
KERNELS = {*HEAVY, "DepthToSpace", "GRU", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LSTM", "Pad", "ReduceMean"}
KERNELS |= {"Resize", "Softmax", "Transpose"}
SENSORS = Path("/sys/class/hwmon")
RAILS = ({"VDD_IN"}, {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"})  # of an Orin Nano's module, and of an AGX Orin's: together all it draws
MARKS = {"cpu": 60.0, "datacentre": 150.0}  # frames per second through encode, edit and decode
FIRST = "--first-frame"


def summary(seconds: list[float]) -> dict[str, float]:
    """Milliseconds: median, 95th and 99th percentile, and the largest."""
    ms = 1e3 * np.array(seconds)
    return {name: round(float(np.percentile(ms, q)), 3) for name, q in (("p50", 50), ("p95", 95), ("p99", 99), ("largest", 100))}


def live(talker: Talker, frames: int) -> dict[str, list[float]]:
    """Seconds of every stage of every frame of the bundled avatar, played over and over, and of the whole frame."""
    talker.push_audio(read_sound(ASSETS / "speech.flac", "speech").speech())
    talker.finish()
    spent: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "whole")}
    source = chain.from_iterable(VideoFile(ASSETS / "avatar.mp4", "avatar") for _ in count())
    with tqdm(total=frames, desc="frames", unit="frame", leave=False) as bar:
        while len(spent["whole"]) < frames:
            ticks = [time.perf_counter()]
            frame = next(source)
            ticks.append(time.perf_counter())
            target = talker.track(frame)
            ticks.append(time.perf_counter())
            (edited,) = talker.edit([target])
            ticks.append(time.perf_counter())
            talker.paint(target, edited)
            ticks.append(time.perf_counter())
            if edited is not None:  # a frame without a face costs less, and is not what is asked about
                for stage, seconds in zip(STAGES, np.diff(ticks)):
                    spent[stage].append(float(seconds))
                spent["whole"].append(ticks[-1] - ticks[0])
                bar.update()
    return spent


def alone(engine: Engine, feed: dict[str, np.ndarray], runs: int) -> list[float]:
    """Seconds of each run of one graph at batch 1, after two that do not count."""
    one = {name: array[:1] for name, array in feed.items()}
    seconds = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        engine.run(one)
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def power_w(sensors: Path = SENSORS) -> float | None:
    """What the chip draws now, where it tells: a GPU through nvidia-smi, a Jetson's module through the sensors at its inputs."""
    watts = {}
    for label in sensors.glob("hwmon*/in*_label"):
        rail = label.name.removesuffix("_label").removeprefix("in")
        if (label.parent / f"curr{rail}_input").is_file():
            volts, amperes = (int((label.parent / f"{kind}{rail}_input").read_text()) / 1e3 for kind in ("in", "curr"))
            watts[label.read_text().strip()] = volts * amperes
    for rails in RAILS:
        if rails <= watts.keys():
            return round(sum(watts[rail] for rail in rails), 2)
    query = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def power_at_work(engines: dict[str, Engine], feeds: dict[str, dict[str, np.ndarray]]) -> float | None:
    """What is drawn while the picture's graphs run over and over, one frame at a time."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(power_w)
        while True:
            for graph in PICTURE_GRAPHS:
                alone(engines[graph], feeds[graph], 1)
            if asked.done():
                return asked.result()


def work(bundle: Bundle, graph: str, precisions: dict[str, str] | None = None) -> list[tuple[int, int, str]]:
    """FLOPs, bytes and precision of each convolution and product of a graph at batch 1; the bytes are its weight's, what it reads and
    what it writes, each once. `precisions` by node, the graph's own unless given."""
    model = onnx.load(str(bundle.graph_path(graph)))
    feed = {name: array[:1] for name, array in bundle.golden(graph)[0].items()}
    operations = flops.by_node(copy(model), feed)
    nodes = [node for node in model.graph.node if node.op_type in HEAVY]
    made = {name for node in model.graph.node for name in node.output} | set(feed)
    shapes = {
        name: array.shape
        for name, array in Probe(model, sorted({n.input[0] for n in nodes} | {n.output[0] for n in nodes} & made)).run(feed).items()
    }
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    precisions = precisions or asked(model)
    result = []
    for node in nodes:
        precision = precisions.get(node.name, "fp32")
        values = prod(shapes[node.input[0]]) + prod(shapes[node.output[0]]) + prod(weights.get(node.input[1], (0,)))
        result.append((operations[node.output[0]], values * BYTES[precision], precision))
    return result


def least_seconds(work: list[tuple[int, int, str]], chip: Chip) -> float:
    """The roofline's time: low precision computes twice as fast as fp16, fp32 as fast as fp16 through its tensor cores at half the rate."""
    rates = {"int8": 2 * chip.matmul, "fp8": 2 * chip.matmul, "fp16": chip.matmul, "fp32": chip.matmul / 2}
    return sum(max(operations / rates[precision], traffic / chip.bandwidth) for operations, traffic, precision in work)


def kernels(model: onnx.ModelProto) -> int:
    """Kernels of a graph at least: one for each operation that reads more than it is next to."""
    return sum(node.op_type in KERNELS for node in model.graph.node)


def predict(bundle: Bundle, target: Target) -> dict[str, float]:
    """Milliseconds of the picture's graphs' work at least, on a device, in the precision that its table asks for; their kernels; and frames
    per second at most, with graphs replayed and with kernels launched one by one."""
    assert target.chip is not None
    busy, count_ = {}, 0
    for graph in PICTURE_GRAPHS:
        precision = target.precision.formats[0] if graph in target.precision.low else target.precision.rest
        model = onnx.load(str(bundle.graph_path(graph)))
        others = {node.name: target.precision.rest for node in model.graph.node if node.op_type in HEAVY}  # of activations alone
        busy[graph] = 1e3 * least_seconds(work(bundle, graph, others | dict.fromkeys(asked(model), precision)), target.chip)
        count_ += kernels(model)
    replayed = sum(busy.values()) + 1e-3 * (len(PICTURE_GRAPHS) * REPLAY_US + count_ * REPLAYED_US)
    launched = sum(busy.values()) + 1e-3 * count_ * LAUNCHED_US
    return {
        **{f"{graph}_ms": round(value, 4) for graph, value in busy.items()},
        "kernels": count_,
        "replayed_frames_per_second": round(1e3 / replayed, 1),
        "launched_frames_per_second": round(1e3 / launched, 1),
    }


def measure(bundle: Bundle, threads: int, frames: int, cold_s: float) -> dict[str, Any]:
    """Everything that is measured here."""
    for _ in range(2):
        start = time.perf_counter()
        with Talker(bundle, threads) as talker:
            live(talker, 1)
        warm_s = time.perf_counter() - start
    with Talker(bundle, threads) as talker:
        spent = live(talker, frames)
    networks = float(np.sum(spent["networks"]))
    engines = {graph: shared_engine(bundle, graph, threads) for graph in GRAPHS}
    feeds = {graph: bundle.golden(graph)[0] for graph in GRAPHS}
    graphs = {graph: alone(engine, feeds[graph], frames) for graph, engine in engines.items()}
    return {
        "cold_s": round(cold_s, 3),
        "warm_s": round(warm_s, 3),
        "whole": {**summary(spent["whole"]), "frames_per_second": round(frames / float(np.sum(spent["whole"])), 2)},
        "stages": {stage: summary(spent[stage]) for stage in STAGES},
        "networks_frames_per_second": round(frames / networks, 2),
        "graphs": {graph: summary(seconds) for graph, seconds in graphs.items()},
        "engines": {graph: type(engine).__name__ for graph, engine in engines.items()},
        "host_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
        "device_mb": _device_mb(),
        "power_w": power_at_work(engines, feeds),
        "frames_ms": [round(1e3 * seconds, 3) for seconds in spent["whole"]],
    }


def _device_mb() -> float | None:
    if not gpus()[0]:
        return None
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        rows = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
        return sum(float(row.split(",")[1]) for row in rows if row.split(",")[0].strip() == str(os.getpid()))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def draw(report: dict[str, Any], path: Path) -> None:
    """The frames in their order, and what each stage takes of the median one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (over, parts) = pyplot.subplots(1, 2, figsize=(11, 4), dpi=110, width_ratios=[3, 2])
    over.plot(report["frames_ms"], linewidth=0.7)
    over.set(xlabel="frame", ylabel="ms", title=report["title"], ylim=(0, None))
    over.grid(alpha=0.3)
    bottom = 0.0
    for stage in STAGES:
        parts.bar(["frame"], [report["stages"][stage]["p50"]], bottom=[bottom], label=stage)
        bottom += report["stages"][stage]["p50"]
    parts.bar(list(report["graphs"]), [graph["p50"] for graph in report["graphs"].values()], color="grey")
    parts.set(ylabel="ms, median", title="one frame; each graph alone, batch 1")
    parts.tick_params(axis="x", rotation=60)
    parts.legend()
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
    pyplot.close(figure)


def find_bundle(target: Target, preset: str, folder: Path) -> Bundle:
    """What `make engine` made for the target; for the CPU also what is shipped. UserError where there is neither."""
    place = folder / target.name / preset
    if place.is_dir():
        return Bundle.open(place)
    if target.chip is None and preset == "nano":
        return Bundle.open("nano")
    raise UserError(f"there is no bundle in {place}: make engine TARGET={target.name} PRESET={preset}")


def main() -> None:
    parser = Parser(prog="python -m benchmarks.engines", description="What a frame takes here, and is predicted to elsewhere.")
    parser.add_argument("target", help=", ".join(names()))
    parser.add_argument("--preset", help="network sizes; the target's own unless named")
    parser.add_argument("--frames", type=int, default=500, help="that are measured, 500 unless named")
    parser.add_argument("--threads", type=int, default=2, help="of the networks, 2 unless named")
    parser.add_argument("--bundles", type=Path, default=OUT, help=f"folder of the bundles, {OUT} unless named")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the result, out unless named")
    parser.add_argument(FIRST, action="store_true", help=argparse.SUPPRESS)  # the process that is timed from its start
    options = parser.parse_args()
    target = find_target(options.target, "TARGET")
    if options.frames < 1 or not 1 <= options.threads <= 256:
        raise UserError(f"--frames {options.frames} --threads {options.threads}: at least one frame, and 1 to 256 threads")
    preset = options.preset or target.preset
    bundle = find_bundle(target, preset, options.bundles)
    if options.first_frame:
        with Talker(bundle, options.threads) as talker:
            live(talker, 1)
        return
    start = time.perf_counter()
    first = subprocess.run([sys.executable, "-m", "benchmarks.engines", *sys.argv[1:], FIRST], check=False)
    if first.returncode != 0:  # it has said why
        raise SystemExit(first.returncode)
    report = measure(bundle, options.threads, options.frames, time.perf_counter() - start)
    report |= {
        "title": f"{target.name}, {preset}, {options.threads} threads",
        "target": target.name,
        "preset": preset,
        "machine": _machine(),
    }
    tell(report, target.name)
    plain = Bundle.open("nano") if preset == "nano" else bundle
    chips = [find_target(name) for name in names() if find_target(name).chip is not None]
    report["predictions"] = {each.name: predict(plain, each) for each in chips}
    print("predicted, not measured: frames per second through encode, edit and decode at most, from FLOPs, bytes and kernels;")
    print(
        f"assumed: a kernel costs {REPLAYED_US} us in a replayed graph, which costs {REPLAY_US:g}, or {LAUNCHED_US} us launched by itself"
    )
    for name, each in report["predictions"].items():
        rates = f"{each['replayed_frames_per_second']:>7.0f} replayed, {each['launched_frames_per_second']:>6.0f} launched"
        print(f"  {name:<12} {rates}, {each['kernels']} kernels")
    path = options.out / f"engines-{target.name}-{preset}.json"
    write_bytes(path, json.dumps(report, indent=2).encode() + b"\n")
    draw(report, path.with_suffix(".png"))
    print(f"{path}, {path.with_suffix('.png')}")


def tell(report: dict[str, Any], target: str) -> None:
    """The measurement as lines."""
    print(f"cold {report['cold_s']:.2f} s, warm {report['warm_s']:.2f} s to the first frame; {report['host_mb']:.0f} MB", end="")
    print(
        "".join(
            f", {report[key]:.0f} {unit}" for key, unit in (("device_mb", "MB on the device"), ("power_w", "W")) if report[key] is not None
        )
    )
    rows = {"frame, whole": report["whole"], **{f"  {stage}": report["stages"][stage] for stage in STAGES}, **report["graphs"]}
    print(f"{'ms':<18} {'p50':>8} {'p95':>8} {'p99':>8} {'largest':>8}")
    for name, row in rows.items():
        print(f"{name:<18} {row['p50']:>8.2f} {row['p95']:>8.2f} {row['p99']:>8.2f} {row['largest']:>8.2f}")
    rates = (report["whole"]["frames_per_second"], report["networks_frames_per_second"])
    mark = f" (mark {MARKS[target]:.0f})" if target in MARKS else ""
    print(f"{rates[0]:.1f} frames per second with decoding and pasting, {rates[1]:.1f}{mark} through the networks")


def _machine() -> str:
    names_ = gpus()[0]
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return ", ".join([*names_, cpu or platform.machine(), f"{os.cpu_count()} cores"])


if __name__ == "__main__":
    with one_sentence("benchmarks.engines"):
        main()
