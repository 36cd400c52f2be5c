"""What an evaluation prints, and the files that hold its figures."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from flashlips_edge.bundle import Bundle
from flashlips_edge.evaluation.marks import MARKS, reached
from flashlips_edge.evaluation.systems import SYSTEMS
from flashlips_edge.files import atomic_path

# Column of the summary: figure, decimals, which way is better.
COLUMNS: dict[str, tuple[str, int, str]] = {
    "mouth dB": ("mouth_db", 1, "up"),
    "SSIM": ("mouth_ssim", 3, "up"),
    "LPIPS": ("lpips", 3, "down"),
    "detail": ("detail", 2, "to one"),
    "opening r": ("correlation", 2, "up"),
    "heard r": ("heard_correlation", 2, "up"),
    "range": ("range", 2, "to one"),
    "landmarks": ("landmark_distance", 3, "down"),
    "sync": ("sync_confidence", 2, "up"),
    "offset": ("sync_offset", 1, "down"),
    "identity": ("identity", 4, "up"),
    "jitter": ("jitter", 2, "to one"),
    "lip jitter": ("lip_jitter", 2, "to one"),
    "leak": ("leak", 2, "down"),
}
PROTOCOLS = ("own", "crossed")
LOSS = {"up": lambda value: -value, "down": lambda value: value, "to one": lambda value: abs(value - 1)}


def figure(metrics: dict[str, float], system: str, protocol: str, metric: str, set_name: str) -> float | None:
    """One figure of the two protocols; None where it was left out."""
    return metrics.get(f"{system.replace('ours', 'speech')}.{protocol}.{metric}.{set_name}")


def columns_in(metrics: dict[str, float], protocol: str) -> list[str]:
    """The summary's columns that hold anything."""
    present = {name.split(".")[2] for name in metrics if name.split(".")[1] == protocol}
    return [column for column, (metric, _, _) in COLUMNS.items() if metric in present]


def summary(metrics: dict[str, float], sets: list[str]) -> str:
    """One line for each protocol, set and system, the bundle's among those that give the scale."""
    lines = []
    for protocol in PROTOCOLS:
        columns = columns_in(metrics, protocol)
        if columns:
            lines.append(f"{protocol:<8} {'':<14} {'':<7}" + "".join(f"{column:>11}" for column in columns))
        for set_name in sets if columns else []:
            for system in SYSTEMS:
                values = [(figure(metrics, system, protocol, COLUMNS[c][0], set_name), COLUMNS[c][1]) for c in columns]
                cells = "".join(f"{'-':>11}" if value is None else f"{value:>11.{decimals}f}" for value, decimals in values)
                lines.append(f"{protocol:<8} {set_name:<14} {system:<7}{cells}")
    return "\n".join(lines)


class Gap(NamedTuple):
    """A figure of the bundle in the set where it is worst and in the one where it is best."""

    protocol: str
    column: str
    worst: tuple[str, float]
    best: tuple[str, float]


def gaps(metrics: dict[str, float], sets: list[str]) -> list[Gap]:
    """How far the sets lie apart in each column; sets may be groups of people. Nothing of a column that fewer than two have."""
    found = []
    for protocol in PROTOCOLS:
        for column in columns_in(metrics, protocol):
            metric, _, better = COLUMNS[column]
            values = {name: figure(metrics, "ours", protocol, metric, name) for name in sets}
            order = sorted(((name, value) for name, value in values.items() if value is not None), key=lambda pair: LOSS[better](pair[1]))
            if len(order) > 1:
                found.append(Gap(protocol, column, order[-1], order[0]))
    return found


def between(metrics: dict[str, float], sets: list[str]) -> str:
    """The gaps, a line each."""
    lines = []
    for protocol, column, worst, best in gaps(metrics, sets):
        decimals = COLUMNS[column][1]
        lines.append(f"{protocol:<8} {column:<10} worst {worst[1]:.{decimals}f} ({worst[0]}), best {best[1]:.{decimals}f} ({best[0]})")
    return "\n".join(["between the sets", *lines]) if lines else ""


def verdicts(metrics: dict[str, float]) -> str:
    """Each figure that has a mark: value, mark, whether it is reached; and how many are. Nothing where none has."""
    marked = {name: verdict for name in metrics if (verdict := reached(name, metrics)) is not None}
    if not marked:
        return ""
    width = max(map(len, marked))
    lines = []
    for name, verdict in marked.items():
        level = MARKS[name].level(metrics)
        words = str(MARKS[name]) + (f" = {level:.3f}" if MARKS[name].of else "")
        lines.append(f"{name:<{width}}  {metrics[name]:>9.3f}  {words:<50}  {'reached' if verdict else 'NOT REACHED'}")
    return "\n".join([*lines, f"{sum(marked.values())} of {len(marked)} marks reached"])


def write(out: Path, metrics: dict[str, float], circumstances: dict[str, object]) -> None:
    """The metrics as a flat JSON object of numbers, and the circumstances beside it as `<stem>.meta.json`."""
    rounded = {name: round(value, 4) for name, value in metrics.items()}
    for path, content in ((out, rounded), (out.with_suffix(".meta.json"), circumstances)):
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def circumstances(bundle: Bundle, seconds: float, left_out: dict[str, str]) -> dict[str, object]:
    """When, with which commit and bundle, and on what it was measured; and what was not."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "bundle": bundle.manifest.get("name", bundle.folder.name),
        "preset": bundle.preset,
        "device": _processor(),
        "cores": os.cpu_count(),
        "seconds": round(seconds),
        "left_out": left_out,
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
