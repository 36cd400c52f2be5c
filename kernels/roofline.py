"""python -m kernels.roofline --target orin: where a preset's kernels lie under a chip's two limits, as a picture and a table.

The roofline (Williams, Waterman and Patterson 2009): a kernel of F FLOPs that moves B bytes takes at least max(F / rate, B / bandwidth).
FLOPs and bytes are counted; without measurements of that very chip in benchmarks/kernels.csv it is a prediction and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.files import atomic_path
from flashlips_edge.models.presets import load_preset
from kernels.batch import check_batch
from kernels.bench.table import read
from kernels.chips import CHIPS, Chip, find_chip
from kernels.specialisation import Specialisation, collect

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def totals(kernels: list[Specialisation], chip: Chip) -> dict[str, tuple[float, int, int]]:
    """Per operation: seconds at least, FLOPs and bytes, of its kernels at each of their shapes once."""
    found: dict[str, tuple[float, int, int]] = {}
    for kernel in kernels:
        seconds, flops, traffic = found.get(kernel.operation, (0.0, 0, 0))
        found[kernel.operation] = (seconds + chip.seconds(kernel.flops, kernel.bytes), flops + kernel.flops, traffic + kernel.bytes)
    return found


def measured(chip: Chip, preset: str, batch: int, path: Path) -> list[tuple[str, float, float]]:
    """Operation, FLOPs per byte and FLOPs per second of what was timed on this chip."""
    points = []
    for row in read(path):
        if (row["device"], row["preset"], row["batch"]) == (chip.key, preset, str(batch)) and float(row["gflop"]):
            flops = 1e9 * float(row["gflop"])
            points.append((row["operation"], flops / (1e6 * float(row["megabytes"])), flops / (1e-3 * float(row["ours_ms"]))))
    return points


def draw(path: Path, chip: Chip, title: str, kernels: list[Specialisation], points: list[tuple[str, float, float]]) -> None:
    """The roof, a dot under it for each kernel at its limit, and a cross for each that was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), dpi=110)

    def roof(intensities: list[float]) -> list[float]:
        return [min(chip.matmul, chip.bandwidth * x) / 1e12 for x in intensities]

    ridge = chip.matmul / chip.bandwidth
    corners = [ridge / 1e4, ridge, 10 * ridge]
    axes.loglog(corners, roof(corners), color="black")
    for number, operation in enumerate(sorted({kernel.operation for kernel in kernels})):
        x = [kernel.flops / kernel.bytes for kernel in kernels if kernel.operation == operation and kernel.flops]
        axes.plot(x, roof(x), "o", color=f"C{number}", label=operation, alpha=0.7)
        crosses = [(v, rate / 1e12) for name, v, rate in points if name == operation]
        axes.plot(*(zip(*crosses) if crosses else ([], [])), "x", color=f"C{number}")
    axes.set(xlabel="FLOPs per byte", ylabel="TFLOP/s", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = Parser(prog="python -m kernels.roofline", description="A preset's kernels under a chip's limits.")
    parser.add_argument("--target", nargs="+", default=list(CHIPS), help="the chips, all unless named")
    parser.add_argument("--preset", default="edge", help="the network sizes, edge unless named")
    parser.add_argument("--batch", type=int, default=1, help="frames at once, 1 unless named")
    parser.add_argument("--out", type=Path, default=BENCHMARKS, help="the pictures' folder, benchmarks unless named")
    arguments = parser.parse_args()
    check_batch(arguments.batch)
    preset: dict[str, Any] = load_preset(arguments.preset)
    for name in arguments.target:
        chip = find_chip(name)
        kernels = collect(preset, arguments.batch, chip.capability)
        points = measured(chip, arguments.preset, arguments.batch, BENCHMARKS / "kernels.csv")
        kind = "measured" if points else "a prediction"
        print(f"{chip.device}, preset {arguments.preset}, batch {arguments.batch}: {kind}; each kernel once at each shape")
        for operation, (seconds, flops, traffic) in totals(kernels, chip).items():
            print(f"  {operation:<18} at least {1e6 * seconds:8.1f} us  {flops / 1e9:9.3f} GFLOP  {traffic / 1e6:8.2f} MB")
        path = arguments.out / f"roofline-{chip.name}-{arguments.preset}.png"
        draw(path, chip, f"{chip.device}, preset {arguments.preset}, batch {arguments.batch}: {kind}", kernels, points)
        print(f"  {path}")


if __name__ == "__main__":
    with one_sentence("kernels.roofline"):
        main()
