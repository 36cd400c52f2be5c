"""From a bundle to the bundle of a target: every stage's result is kept beside it, so that a killed run goes on; the bundle comes whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flashlips_edge.bundle import Bundle, write_manifest
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path, write_bytes
from flashlips_edge.folders import put
from quantize import calibration, lips, policy, sensitivity
from quantize.answers import Quality, feeds_of, golden_feeds
from quantize.calibration import CalibrationSet
from quantize.finetune import finetune
from quantize.graph import Feed
from quantize.layers import Layer
from quantize.policy import Budget
from quantize.qdq import weight_max
from quantize.sensitivity import Damage
from quantize.targets import LIPS_ENCODER, Target
from quantize.workbench import Workbench

WEIGHTS = Path("weights")  # of the shipped presets, one folder each: what fine-tuning starts from
GOLDEN_TOLERANCE = 0.05  # of the largest output: another processor rounds 8-bit sums' ends differently


@dataclass(frozen=True)
class Built:
    """What came of it. ``rules``: what each rule for ranges reached on each graph with all its layers low; ``missed``: the marks of
    the budget that were not reached, in a sentence each."""

    folder: Path
    bench: Workbench
    low: set[Layer]
    damages: dict[Layer, Damage]
    rules: dict[str, dict[str, float]]
    quality: Quality
    missed: list[str]


def build(
    bundle: Bundle, target_name: str, target: Target, form: str, videos: Path, budget: Budget, out: Path, finetune_steps: int = 0
) -> Built:
    """Write the bundle ``out``, its sensitivities and the reasons beside its graphs in ``quantisation.json``.

    UserError for what is wrong with the calibration set, a graph or the budget, and where ``out`` is something else than such a bundle;
    then it is as it was."""
    if out.exists() and not _is_quantised(out):
        raise UserError(f"--out {out}: this is there and is no quantised bundle; name a new folder, or delete it")
    work = out.with_name(f".{out.name}.work")
    purpose = {"source": _digest(bundle), "target": target_name, "format": form, "videos": _listing(videos), "finetune": finetune_steps}
    frames = _start(work, purpose, bundle, videos)
    most = int(weight_max(form, target.fused))
    tuned = _tuned(work / "tuned", bundle, frames, finetune_steps, most) if finetune_steps else None
    bench = Workbench(bundle, target, form, frames, tuned)
    rules = _rules(work / "rules.json", bench)
    chosen = lips.choose(bench, budget)
    if chosen.low:
        bench.rules[LIPS_ENCODER] = chosen.rule
    damages = sensitivity.measure(bench, work / "sensitivity.jsonl")
    low, quality = policy.assign(bench, damages, replace(budget, lips=min(budget.lips, chosen.lips)), chosen.low)
    missed = policy.missed(bench, low, budget, quality)
    folder = work / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    _write(folder, bench, target_name, low, damages, rules, quality, missed, budget, finetune_steps)
    put(folder, out)
    shutil.rmtree(work)
    return Built(out, bench, low, damages, rules, quality, missed)


def _is_quantised(folder: Path) -> bool:
    """Whether a run before this one wrote it."""
    try:
        return bool(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["quantisation"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _start(work: Path, purpose: dict[str, Any], bundle: Bundle, videos: Path) -> CalibrationSet:
    """The calibration set of a run that is under way in ``work``; one that was for something else is begun anew."""
    note, text = work / "purpose.json", json.dumps(purpose, indent=2).encode()
    if not note.is_file() or note.read_bytes() != text:
        shutil.rmtree(work, ignore_errors=True)
        frames = calibration.choose(videos, bundle)
        with atomic_path(work / "calibration.npz") as temporary:
            frames.save(temporary)
        write_bytes(note, text)
    return CalibrationSet.read(work / "calibration.npz")


def _digest(bundle: Bundle) -> str:
    """sha256 of the bundle's manifest, which holds that of every file."""
    return hashlib.sha256((bundle.folder / "manifest.json").read_bytes()).hexdigest()


def _listing(videos: Path) -> list[list[Any]]:
    return [[path.relative_to(videos).as_posix(), path.stat().st_size] for path in calibration.videos_in(videos)]


def _tuned(folder: Path, bundle: Bundle, frames: CalibrationSet, steps: int, most: int) -> Bundle:
    if folder.is_dir():
        return Bundle.open(folder)
    return finetune(bundle, WEIGHTS / bundle.preset, feeds_of(bundle, frames)["editor"], steps, folder, most)


def _rules(path: Path, bench: Workbench) -> dict[str, dict[str, float]]:
    """The rule for each graph's ranges, chosen or as it was chosen; the figures: dB of the mouth box, or the spoken cosine."""
    if not path.is_file():
        tried = {name: {rule: asdict(quality) for rule, quality in each.items()} for name, each in bench.choose_rules().items()}
        write_bytes(path, json.dumps({"chosen": bench.rules, "tried": tried}, indent=2).encode())
    kept = json.loads(path.read_text(encoding="utf-8"))
    bench.rules.update(kept["chosen"])
    return kept["tried"]


def _write(
    folder: Path,
    bench: Workbench,
    target_name: str,
    low: set[Layer],
    damages: dict[Layer, Damage],
    rules: dict[str, dict[str, float]],
    quality: Quality,
    missed: list[str],
    budget: Budget,
    finetune_steps: int,
) -> None:
    source = bench.bundle
    (folder / "golden").mkdir(parents=True)
    goldens, entries = golden_feeds(source, bench.frames), {}
    for name, entry in source.manifest["graphs"].items():
        place = folder / entry["file"]
        model = bench.finished(name, low)
        model.producer_name, model.producer_version = "flashlips_edge", ""
        place.write_bytes(model.SerializeToString(deterministic=True))
        entries[name] = entry | _entry(bench, name, low) | _golden(bench, folder, name, place, goldens.get(name))
    if (source.folder / "LICENSE").is_file():
        shutil.copyfile(source.folder / "LICENSE", folder / "LICENSE")
    if (source.folder / "MODEL_CARD.md").is_file():
        _write_card(bench, target_name, budget, quality, source.folder / "MODEL_CARD.md", folder / "MODEL_CARD.md")
    report = {
        "budget": asdict(budget),
        "quality": {key: round(value, 6) for key, value in asdict(quality).items()},
        "ranges": {"chosen": bench.rules, "tried": rules},
        "layers": [_row(bench, layer, damages[layer], layer in low) for layer in ranked(damages)],
        "high": policy.reasons(bench, damages, low, budget, quality),
        "missed": missed,
    }
    write_bytes(folder / "quantisation.json", json.dumps(report, indent=2).encode() + b"\n")
    fields = {key: value for key, value in source.manifest.items() if key not in ("schema", "files", "graphs")}
    made = {
        "format": bench.form,
        "rest": bench.target.rest,
        "calibration_sha256": bench.frames.digest,
        "calibration_frames": len(bench.frames.crops),
        "source_sha256": _digest(source),
        "finetune_steps": finetune_steps,
        "mouth_db": round(quality.mouth_db, 2),
        "lips_cosine": round(quality.lips, 6),
    }
    write_manifest(folder, fields | {"graphs": entries, "targets": [target_name], "quantisation": made})


def _write_card(bench: Workbench, target_name: str, budget: Budget, quality: Quality, source: Path, place: Path) -> None:
    """The source's model card, with what was done to its networks before it."""
    command = f"python -m quantize --target {target_name} --budget-db {budget.mouth_db:g}"
    done = (
        f"Quantised for {target_name}, to {bench.form} and {bench.target.rest}, by `{command}`. On the "
        f"calibration set the mouth box is {quality.mouth_db:.1f} dB from fp32's, the lips vectors' cosine with fp32's at least "
        f"{quality.lips:.5f}; layer by layer in `quantisation.json`. What follows is the card of the fp32 networks, and its "
        "figures are theirs.\n\n"
    )
    write_bytes(place, (done + source.read_text(encoding="utf-8")).encode())


def ranked(damages: dict[Layer, Damage]) -> list[Layer]:
    """Layers, the most sensitive first: by the picture, then lips, then speech."""
    return sorted(damages, key=lambda layer: (*(-value for value in asdict(damages[layer]).values()), layer.graph, layer.name))


def _row(bench: Workbench, layer: Layer, damage: Damage, is_low: bool) -> dict[str, Any]:
    quality = {"picture": damage.picture, "lips": damage.lips, "spoken": damage.spoken}
    saved_us = 1e6 * bench.target.saving(layer.flops, layer.weights)
    return {
        "graph": layer.graph,
        "layer": layer.name,
        "precision": bench.form if is_low else bench.target.rest,
        "mflop": round(layer.flops / 1e6, 3),
        "weights": layer.weights,
        "saved_us": round(saved_us, 3),
        **{key: float(f"{value:.4g}") for key, value in quality.items()},
    }


def _entry(bench: Workbench, name: str, low: set[Layer]) -> dict[str, Any]:
    """Precision of a graph and of its layers; those too small to be a choice are in the target's other format."""
    rest = bench.target.rest
    mine = [layer for layer in bench.layers if layer.graph == name]
    if not mine:
        return {"precision": rest}
    share = bench.share(name, low)
    return {
        "precision": f"{bench.form}+{rest}" if share else rest,
        "low_share_of_flops": round(share, 4),
        "layers": {layer.name: bench.form if layer in low else rest for layer in mine},
    }


def _golden(bench: Workbench, folder: Path, name: str, place: Path, feed: Feed | None) -> dict[str, Any]:
    """The graph's own outputs for ``feed``, or for the source's golden inputs, and how far they are from the source's outputs."""
    if feed is None and not (bench.bundle.folder / "golden" / f"{name}.npz").is_file():
        return {}
    inputs = feed or bench.bundle.golden(name)[0]
    truth = bench.networks.engine(name).run(inputs)
    outputs = OnnxRuntimeEngine(place, fuse_quantised=bench.target.fused).run(inputs)
    error = float(np.max([np.abs(outputs[key] - truth[key]).max() / np.abs(truth[key]).max() for key in truth]))
    if not np.isfinite(error):
        raise UserError(f"graph {name}: {place.name} gives no finite numbers for the golden input; the weights do not bear this format")
    arrays = {f"in.{key}": value for key, value in inputs.items()} | {f"out.{key}": value for key, value in outputs.items()}
    np.savez_compressed(folder / "golden" / f"{name}.npz", **arrays)
    return {"golden_error": float(f"{error:.3g}"), "golden_tolerance": GOLDEN_TOLERANCE}
