"""The marks, the table and the files that hold an evaluation."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

from flashlips_edge.bundle import Bundle
from flashlips_edge.files import atomic_path

# What each metric must reach: at least (>=), at most (<=), or above another metric (>).
MARKS: dict[str, tuple[str, float | str]] = {
    "autoencoder.mouth_db.grid_unseen": (">=", 39.0),
    "autoencoder.mouth_db.video": (">=", 37.0),
    "cost.gflop.autoencoder": ("<=", 2.7),
    "cost.gflop.frame": ("<=", 4.0),
    "cost.gflop.speech": ("<=", 0.2),
    "cost.bundle_mb": ("<=", 40.0),
    "same_face.masked_db.grid_s1": (">=", 34.0),
    "same_face.masked_db.grid_unseen": (">", "same_face.best_copy_db.grid_unseen"),
    "same_face.masked_db.video": (">", "same_face.best_copy_db.video"),
    "same_face.cross_db.grid_s1": (">", "same_face.copy_db.grid_s1"),
    "same_face.cross_db.grid_unseen": (">", "same_face.copy_db.grid_unseen"),
    "same_face.cross_db.video": (">", "same_face.copy_db.video"),
    **{
        f"speech.{kind}.correlation.{name}": (">=", mark)
        for kind in ("own", "crossed")
        for name, mark in (("grid_s1", 0.6), ("grid_unseen", 0.35), ("video", 0.35))
    },
    **{f"silence.{kind}.share.{name}": ("<=", 0.1) for kind in ("zeros", "noise") for name in ("grid_s1", "grid_unseen", "video")},
    **{f"control.{way}.in_order.{name}": (">=", 1.0) for way in ("between", "along") for name in ("grid_s1", "grid_unseen", "video")},
    "control.photos.in_order": (">=", 1.0),
    "speed.frames_per_second": (">=", 25.0),
}


def reached(name: str, metrics: dict[str, float]) -> bool | None:
    """Whether a metric reaches its mark; None where it has none, or the metric it is held against was not measured."""
    if name not in MARKS:
        return None
    sign, mark = MARKS[name]
    if isinstance(mark, str):
        return metrics[name] > metrics[mark] if mark in metrics else None
    return metrics[name] >= mark if sign == ">=" else metrics[name] <= mark


def table(metrics: dict[str, float]) -> str:
    """Metric, value, mark, and whether it is reached, a line each."""
    width = max(map(len, metrics), default=6)
    lines = [f"{'metric':<{width}}  {'value':>9}  {'mark':<34}"]
    for name, value in metrics.items():
        sign, mark = MARKS.get(name, ("", ""))
        words = f"{sign} {mark}" + (f" = {metrics[mark]:.3f}" if isinstance(mark, str) and mark in metrics else "")
        word = {True: "reached", False: "NOT REACHED", None: ""}[reached(name, metrics)]
        lines.append(f"{name:<{width}}  {value:>9.3f}  {words:<50}  {word}".rstrip())
    marked = [verdict for verdict in (reached(name, metrics) for name in metrics) if verdict is not None]
    return "\n".join([*lines, f"{sum(marked)} of {len(marked)} marks reached"])


def write(out: Path, metrics: dict[str, float], circumstances: dict[str, object]) -> None:
    """The metrics as a flat JSON object of numbers, and the circumstances beside it as `<stem>.meta.json`."""
    rounded = {name: round(value, 4) for name, value in metrics.items()}
    for path, content in ((out, rounded), (out.with_suffix(".meta.json"), circumstances)):
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def circumstances(bundle: Bundle, seconds: float) -> dict[str, object]:
    """When, with which commit and bundle, and on what it was measured."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "bundle": bundle.manifest.get("name", bundle.folder.name),
        "preset": bundle.preset,
        "device": _processor(),
        "cores": os.cpu_count(),
        "seconds": round(seconds),
    }


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run([git, "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
