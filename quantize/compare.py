"""What quantisation costs and saves, on clips that nothing was calibrated on, beside the libraries' own defaults.

    python -m quantize.compare --cpu work/quantised/nano-cpu --orin work/quantised/nano-orin --datacentre work/quantised/nano-datacentre

Prints a table and writes benchmarks/quantize.json, benchmarks/quantize.png (the synthetic head: fp32, quantised and eight times the
difference) and out/quantize/faces.png (recorded faces, which are not part of the project).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import report, sheets
from flashlips_edge.files import write_bytes
from flashlips_edge.talking.networks import Networks
from flashlips_edge.training import synthetic_clips
from quantize import baselines, calibration, rtx, speed
from quantize.answers import Answers, Trial, answer, compare, drive, feeds_of, picture
from quantize.calibration import CalibrationSet
from quantize.targets import TARGETS

GRAPHS = ("latent_encoder", "editor", "latent_decoder", "lips_encoder")  # that every system quantises
FRAMES, SOUNDS = 32, 8
GAIN = 8  # of the differences that are shown
UNSEEN_SEED = 5000  # of the synthetic head; calibration takes others
MOMENTS = 6


def main() -> None:
    parser = Parser(prog="python -m quantize.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="nano", help="the fp32 bundle that they were made from")
    for name in TARGETS:
        parser.add_argument(f"--{name}", type=Path, default=Path(f"work/quantised/nano-{name}"), help=f"the bundle of target {name}")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/quantize.json"), help="the figures; the picture goes beside them")
    options = parser.parse_args()
    data = calibration.test_folder()
    plain = Bundle.open(options.preset)
    bundles = {name: Bundle.open(getattr(options, name)) for name in TARGETS}
    for name, bundle in bundles.items():
        if bundle.targets != (name,):
            raise UserError(f"--{name} {bundle.folder}: not a bundle of target {name}; make it with python -m quantize --target {name}")
    frames = calibration.choose(data, plain, FRAMES, SOUNDS, drawn=0)
    networks = Networks(plain)
    truth = answer(networks, frames)
    systems = {f"ours, {name}": _ours(bundle) for name, bundle in bundles.items()}
    with tempfile.TemporaryDirectory() as folder:
        systems |= _defaults(plain, calibration.choose(calibration.default_folder(), plain), Path(folder))
        rows = {name: _row(networks, changed, exact, frames, truth) for name, (changed, exact) in systems.items()}
    for name, bundle in bundles.items():
        row = rows[f"ours, {name}"]
        row["low_share_of_flops"] = {g: bundle.manifest["graphs"][g]["low_share_of_flops"] for g in GRAPHS}
        row["built_by_tensorrt_rtx"] = _built(name, bundle)
    feeds = {name: {key: array[:1] for key, array in each[-1].items()} for name, each in feeds_of(plain, frames.part(4, 1)).items()}
    times = speed.measure(plain, bundles["cpu"], feeds)
    result = {
        "systems": rows,
        "speed_cpu": times,
        "bundle_mb": {name: round(_megabytes(bundle), 2) for name, bundle in {"fp32": plain, **bundles}.items()},
        "frames": len(frames.crops),
        "sounds": len(frames.sounds),
        "circumstances": report.circumstances(plain, 0.0, {}),
    }
    write_bytes(options.out, json.dumps(result, indent=2).encode() + b"\n")
    head = _head(networks)
    sheets.save(options.out.with_suffix(".png"), _sheet(networks, bundles, head))
    sheets.save(Path("out/quantize/faces.png"), _sheet(networks, bundles, frames.part(MOMENTS, 1)))
    _tell(rows, times)


def _ours(bundle: Bundle) -> tuple[dict[str, Path], bool]:
    """A system: which files stand in for the fp32 graphs, and whether Q/DQ is to be computed as written."""
    return {name: bundle.graph_path(name) for name in bundle.manifest["graphs"]}, bundle.targets != ("cpu",)


def _defaults(plain: Bundle, frames: CalibrationSet, folder: Path) -> dict[str, tuple[dict[str, Path], bool]]:
    """The libraries' defaults, calibrated on what ours was."""
    feeds = feeds_of(plain, frames)
    systems: dict[str, tuple[dict[str, Path], bool]] = {}
    for system in ("ONNX Runtime's default, int8", "modelopt's default, int8", "modelopt's default, fp8"):
        changed = {}
        for name in GRAPHS:
            changed[name] = folder / f"{system.replace(' ', '_')}.{name}.onnx"
            if system.startswith("ONNX"):
                baselines.onnx_runtime(plain, name, feeds[name], changed[name])
            else:
                baselines.modelopt(plain, name, feeds[name], changed[name], system.rsplit(" ", 1)[1])
        systems[system] = changed, not system.startswith("ONNX")
    return systems


def _row(networks: Networks, changed: dict[str, Path], exact: bool, frames: CalibrationSet, truth: Answers) -> dict[str, Any]:
    """Quality of the system as a whole and of each graph alone; sizes as shares of fp32's; how well the spoken lips follow the
    sound's own recording, beside fp32."""
    opening = networks.bundle.lips_opening
    given = answer(Trial(networks, changed, exact), frames)
    quality = {key: round(value, 5) for key, value in asdict(compare(given, truth, opening)).items()}
    alone = {}
    for name in GRAPHS:
        one = compare(answer(Trial(networks, {name: changed[name]}, exact), frames.part(16, 1)), _part(truth, 16, 1), opening)
        alone[name] = {"mouth_db": round(one.mouth_db, 2), "lips": round(one.lips, 5)}
    mean_lips = np.mean(np.sum(given.lips * truth.lips, 1) / (np.linalg.norm(given.lips, axis=1) * np.linalg.norm(truth.lips, axis=1)))
    sizes = {name: round(changed[name].stat().st_size / networks.bundle.graph_path(name).stat().st_size, 3) for name in GRAPHS}
    return {**quality, "lips_mean": round(float(mean_lips), 6), "alone": alone, "size": sizes}


def _part(answers: Answers, frames: int, sounds: int) -> Answers:
    return Answers(answers.mouths[:frames], answers.lips[:frames], answers.spoken[:sounds])


def _built(target: str, bundle: Bundle) -> dict[str, dict[str, int]] | str:
    """Bytes of TensorRT-RTX's engine for each stand-in of the target's chip."""
    if target not in rtx.CAPABILITIES:
        return "not for TensorRT"
    try:
        return {c: {g: rtx.build(bundle.graph_path(g), c, _shapes(bundle, g)) for g in GRAPHS} for c in rtx.CAPABILITIES[target]}
    except ImportError:
        return "not tried: tensorrt-rtx is not installed"


def _shapes(bundle: Bundle, graph: str) -> dict[str, tuple[int, ...]]:
    """The inputs of a run at batch 1."""
    return {name: (1, *array.shape[1:]) for name, array in bundle.golden(graph)[0].items()}


def _megabytes(bundle: Bundle) -> float:
    return sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file()) / 1e6


def _head(networks: Networks) -> CalibrationSet:
    """The synthetic head with other lips, of a person that calibration has not seen."""
    crops = np.asarray(synthetic_clips.make(UNSEEN_SEED, networks.crop_size)["crops.npy"])
    openings = np.argsort(networks.lips(crops) @ networks.bundle.lips_opening)
    chosen = np.linspace(0, len(crops) - 1, MOMENTS).astype(int)
    references = np.stack([crops[openings[[0, len(crops) // 3, 2 * len(crops) // 3, -1]]]] * MOMENTS)
    nothing = np.zeros(0, np.float32)
    return CalibrationSet(crops[chosen], crops[openings[chosen]], references, nothing, nothing, np.array(["drawn"] * MOMENTS))


def _sheet(networks: Networks, bundles: dict[str, Bundle], frames: CalibrationSet) -> np.ndarray:
    """Mouths of fp32, of each target, and the differences, GAIN times, about grey."""
    truth = _mouths(networks, frames)
    rows = [("source", [np.array(crop) for crop in frames.crops]), ("fp32", list(_levels(truth)))]
    for name, bundle in bundles.items():
        mouths = _mouths(Trial(networks, *_ours(bundle)), frames)
        manifest = bundle.manifest["quantisation"]
        rows.append((f"{name}\n{manifest['format']}+{manifest['rest']}", list(_levels(mouths))))
        rows.append((f"difference\nx {GAIN}", list(_levels(127.5 + GAIN * (mouths - truth)))))
    return sheets.sheet(rows, tile_px=150)


def _mouths(networks: Networks, frames: CalibrationSet) -> np.ndarray:
    return picture(networks, frames, drive(networks, frames))


def _levels(pictures: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


def _tell(rows: dict[str, dict[str, Any]], times: dict[str, dict[str, float]]) -> None:
    print(f"{'':<30} {'mouth dB':>8} {'worst':>6} {'lips':>8} {'least':>8} {'speech':>7}  size of " + ", ".join(GRAPHS))
    for name, row in rows.items():
        figures = f"{row['mouth_db']:8.1f} {row['worst_db']:6.1f} {row['lips_mean']:8.5f} {row['lips']:8.5f} {row['opening']:7.4f}"
        print(f"{name:<30} {figures}  {', '.join(f'{size:.2f}' for size in row['size'].values())}")
    print(f"{'cpu, two threads, batch 1':<30} {'fp32 ms':>8} {'int8 ms':>8} {'faster':>7}")
    for name, row in times.items():
        print(f"{name:<30} {row['fp32_ms']:8.2f} {row['ms']:8.2f} {row['faster']:7.2f}")


if __name__ == "__main__":
    with one_sentence("quantize.compare"):
        main()
