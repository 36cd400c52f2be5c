"""python -m kernels.bench: every layer at every shape of the presets, checked, timed, and written to benchmarks/kernels.csv."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.errors import UserError
from flashlips_edge.models.presets import load_preset
from kernels.batch import check_batch
from kernels.chips import device_key

ROOT = Path(__file__).resolve().parents[2]
CSV = ROOT / "benchmarks" / "kernels.csv"


def main() -> None:
    parser = Parser(prog="python -m kernels.bench", description="Check and time the kernels on this machine's GPU.")
    parser.add_argument("--preset", nargs="+", default=["paper", "edge"], help="the network sizes, paper and edge unless named")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="frames at once, 1 and 8 unless named")
    parser.add_argument("--out", type=Path, default=CSV, help="the CSV, benchmarks/kernels.csv unless named")
    parser.add_argument("--rehearse", action="store_true", help="preset nano under Triton's interpreter: checks everything, times nothing")
    arguments = parser.parse_args()
    check_batch(*arguments.batch)
    if arguments.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated, which the imports below do
        arguments.preset, arguments.batch = ["nano"], [1]
    elif not torch.cuda.is_available():
        raise UserError("there is no GPU to time kernels on; --rehearse runs everything but the timing without one")
    from kernels.bench.measure import WrongError, measure
    from kernels.bench.table import marks, merge, render

    device = "rehearsal"
    if not arguments.rehearse:
        chip = torch.cuda.get_device_properties(0)
        device = device_key(chip.name, chip.multi_processor_count)
    dtype = torch.float32 if arguments.rehearse else torch.bfloat16
    rows = []
    try:
        for name, batch in product(arguments.preset, arguments.batch):
            for row in measure(load_preset(name), batch, dtype):
                print(f"{name}, {batch} at once: {row['operation']}, {row['shape']}", flush=True)
                rows.append({"device": device, "commit": _commit(), "preset": name, "batch": str(batch), **row})
    except WrongError as error:
        print(f"kernels.bench: {error}; nothing is reported while a kernel is wrong", file=sys.stderr)
        raise SystemExit(1) from None
    print(render(rows))
    if arguments.rehearse:
        print(f"{len(rows)} cases agree with float64; nothing was timed and nothing written")
        return
    merge(arguments.out, rows)
    results = marks(rows)
    for sentence, kept in results:
        print(f"{'kept  ' if kept else 'MISSED'}  {sentence}")
    print(f"{arguments.out}: {len(rows)} rows, {sum(kept for _, kept in results)} of {len(results)} marks kept")


def _commit() -> str:
    """The checkout's commit, with + where files differ from it."""
    asked: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **asked).stdout.strip() or "unknown"
    return commit + ("+" if subprocess.run(["git", "status", "--porcelain", "-uno"], **asked).stdout.strip() else "")


if __name__ == "__main__":
    with one_sentence("kernels.bench"):
        main()
