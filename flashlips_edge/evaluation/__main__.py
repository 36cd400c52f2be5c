"""What the lips are worth, measured on a folder of videos: a report with pictures and plots, JSON, a line for each system."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from flashlips_edge.arguments import Parser
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import html, report
from flashlips_edge.evaluation.judges import Judges
from flashlips_edge.evaluation.marks import SETS
from flashlips_edge.evaluation.parts import PARTS, Evaluation

PROGRAM = "flashlips_edge.evaluation"
STOPPED, WRONG_USE = 130, 2  # exit status
BUNDLE = "nano"
RECORD = Path(__file__).parents[2] / "benchmarks" / "evaluation.json"  # of that bundle on the whole of the recorded data; in a checkout


def parser() -> argparse.ArgumentParser:
    """Every option of the command line."""
    result = Parser(prog=f"python -m {PROGRAM}", description=__doc__)
    result.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="FOLDER",
        help="videos, or folders of videos: the sets (default: test in the recorded data, which FLASHLIPS_DATA names)",
    )
    result.add_argument("--bundle", default=BUNDLE, help="name or folder of the bundle (default: %(default)s)")
    result.add_argument("--models", type=Path, help="folder of the landmark network (or FLASHLIPS_MODELS)")
    result.add_argument("--lpips", type=Path, help="torchvision's alexnet-owt-*.pth; without it LPIPS is left out")
    result.add_argument("--parts", default=",".join(PARTS), help="which, with commas between (default: %(default)s)")
    result.add_argument("--out", type=Path, default=Path("out/evaluation"), help="folder of the report (default: %(default)s)")
    result.add_argument("--quick", action="store_true", help="1.6 s or 25 faces of the first and last clip of each set: does it run at all")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each system and the marks; writes report.html, evaluation.json, contact sheets and videos to --out."""
    start = time.monotonic()
    options = parser().parse_args(arguments)
    parts = [part.strip() for part in options.parts.split(",")]
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--parts {unknown[0]!r} is not one of {', '.join(PARTS)}.")
    folder = options.folder or Path(os.environ.get("FLASHLIPS_DATA") or "../shared/data") / "test"
    judges = Judges.open(options.models, Path(os.environ.get("FLASHLIPS_MODELS") or "../shared/models"), options.lpips)
    with tempfile.TemporaryDirectory() as store:
        evaluation = Evaluation(folder, options.bundle, judges, options.out, Path(store), options.quick)
        for part in PARTS:
            if part in parts:
                for name, value in evaluation.run(part):
                    tqdm.write(f"{name} {value:.3f}", file=sys.stderr)
    findings = evaluation.findings
    circumstances = report.circumstances(evaluation.bundle, time.monotonic() - start, findings.left_out)
    report.write(options.out / "evaluation.json", findings.metrics, circumstances)
    html.write(options.out / "report.html", findings, circumstances)
    metrics, sets = findings.metrics, findings.sets
    print("\n\n".join(filter(None, (report.summary(metrics, sets), report.between(metrics, sets), report.verdicts(metrics)))))
    for name, reason in findings.left_out.items():
        print(f"left out: {name} ({reason})")
    print(options.out / "report.html")
    whole = not options.quick and set(parts) == set(PARTS) and set(findings.left_out) <= {"LPIPS"} and sets == list(SETS)
    if options.folder is None and options.bundle == BUNDLE and whole and RECORD.parent.is_dir():
        report.write(RECORD, metrics, circumstances)


def command(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 for wrong use, 130 where Ctrl-C ended it."""
    try:
        main(arguments)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped before its report was written", file=sys.stderr)
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(command())
