"""The table of measurements: one CSV for all devices and commits, and the marks it is held against."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from flashlips_edge.files import write_bytes

KEY = ("device", "commit", "preset", "batch", "dtype", "operation", "shape")
MEASURED = ("ours_ms", "eager_ms", "compile_ms", "library_ms", "limit_ms", "copy_ms", "megabytes", "gflop")
Row = dict[str, str]


def merge(path: Path, rows: list[Row]) -> None:
    """Add `rows` to the CSV; a row of the same device, commit and case is replaced."""
    kept = {_key(row): row for row in read(path)}
    kept.update({_key(row): row for row in rows})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*KEY, *MEASURED], lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept[key] for key in sorted(kept))
    write_bytes(path, text.getvalue().encode())


def read(path: Path) -> list[Row]:
    """The rows of the CSV, none where there is no such file."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))) if path.is_file() else []


def render(rows: list[Row]) -> str:
    """The rows for a terminal; what was not measured is a dash."""
    columns = ("preset", "batch", "operation", "shape", *MEASURED)
    lines = [columns, *([row[column] or "-" for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def marks(rows: list[Row]) -> list[tuple[str, bool]]:
    """What the rows promise, each with whether they keep it: memory-bound layers past 32 MB, attention, the editor, the integration."""
    results = []
    for row in rows:
        ours, name = float(row["ours_ms"]), f"{row['operation']}, {row['shape']}, {row['preset']}"
        if row["operation"] in {"group_norm_silu", "adaln"} and float(row["megabytes"]) >= 32:
            share = float(row["copy_ms"]) / ours
            results.append((f"{name}: {share:.0%} of the copy bandwidth (85 %)", share >= 0.85))
        if row["operation"] == "attention_block":
            times = float(row["library_ms"]) / ours
            results.append((f"{name}: {times:.2f} times the best SDPA (1)", times >= 1))
        if row["operation"] == "editor" and row["preset"] == "paper" and row["batch"] == "1":
            times = float(row["compile_ms"]) / ours
            results.append((f"{name}: {times:.2f} times torch.compile max-autotune (1.2)", times >= 1.2))
        if row["operation"] == "flow_integrate":
            times = ours / float(row["copy_ms"])
            results.append((f"{name}: {times:.2f} times as long as reading the weights (2)", times <= 2))
    return results


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in KEY)
