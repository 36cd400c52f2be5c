"""Learning curves: rows of numbers in a text file, the same for TensorBoard, and a picture of them."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from flashlips_edge.files import atomic_path, write_bytes

Row = dict[str, float]


class Curve:
    """The curve of one run: ``folder/name.jsonl``, ``folder/name.png``, ``folder/tensorboard/name``; rows after ``start`` are forgotten."""

    def __init__(self, folder: Path, name: str, start: int = 0) -> None:
        self.path = folder / f"{name}.jsonl"
        rows = [row for row in read(self.path) if row["step"] <= start] if self.path.exists() else []
        write_bytes(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self._writer = SummaryWriter(str(folder / "tensorboard" / name), purge_step=start + 1 if start else None)

    def append(self, step: int, values: Row) -> None:
        """One row: numbers by name, as they stand after ``step`` steps."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **{key: round(value, 8) for key, value in values.items()}}) + "\n")
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def draw(self) -> None:
        """Write the picture, and what TensorBoard has not yet read."""
        self._writer.flush()
        picture(read(self.path), self.path.with_suffix(".png"))


def read(path: Path) -> list[Row]:
    """The rows of a curve, but for the half one that a killed run may have left at the end."""
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def picture(rows: list[Row], path: Path) -> None:
    """Every name of the rows in a small plot of its own, over the steps."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name != "step"]
    if not names:
        return
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.2 * lines), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, index + 1)
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points), marker="." if len(points) < 20 else None, linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
