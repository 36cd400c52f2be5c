"""What the rules for ranges are worth, on clips that nothing was calibrated on.

    python -m quantize.compare_ranges

Every layer of a target is low, so that nothing hides behind a budget. Prints a table and writes benchmarks/quantize-ranges.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.bundle import Bundle
from flashlips_edge.evaluation import report
from flashlips_edge.files import write_bytes
from quantize import calibration, ranges, targets
from quantize.answers import Quality
from quantize.workbench import Workbench

FRAMES, SOUNDS = 32, 8  # as quantize.compare takes


def main() -> None:
    parser = Parser(prog="python -m quantize.compare_ranges", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="nano", help="the fp32 bundle")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/quantize-ranges.json"), help="the figures")
    options = parser.parse_args()
    bundle = Bundle.open(options.preset)
    unseen = calibration.choose(calibration.test_folder(), bundle, FRAMES, SOUNDS, drawn=0)
    seen = calibration.choose(calibration.default_folder(), bundle)
    rows = {name: _by_rule(Workbench(bundle, *targets.find(name, None), seen), unseen) for name in targets.TARGETS}
    rounded = {name: {choice: _rounded(quality) for choice, quality in row.items()} for name, row in rows.items()}
    result = {"targets": rounded, "circumstances": report.circumstances(bundle, 0.0, {})}
    write_bytes(options.out, json.dumps(result, indent=2).encode() + b"\n")
    print(f"{'all layers low':<44} {'mouth dB':>8} {'worst':>6} {'lips':>8} {'speech':>7}")
    for name, row in rows.items():
        for choice, quality in row.items():
            figures = f"{quality.mouth_db:8.1f} {quality.worst_db:6.1f} {quality.lips:8.5f} {quality.opening:7.4f}"
            print(f"{name + ', ' + choice:<44} {figures}")


def _by_rule(bench: Workbench, unseen: calibration.CalibrationSet) -> dict[str, Quality]:
    """By name of the rule; last what is chosen for each graph with all its layers low, on the calibration set."""
    bench.choose_rules()
    chosen = dict(bench.rules)
    bench.try_on(unseen, (FRAMES, SOUNDS))
    rows = {}
    for rule in ranges.RULES:
        bench.rules = dict.fromkeys(chosen, rule)
        rows[rule] = _quality(bench)
    bench.rules = chosen
    return rows | {"chosen for each graph": _quality(bench)}


def _quality(bench: Workbench) -> Quality:
    return bench.quality({name: bench.quantised(name, set(bench.layers)) for name in bench.rules})


def _rounded(quality: Quality) -> dict[str, float]:
    return {name: round(figure, 5) for name, figure in asdict(quality).items()}


if __name__ == "__main__":
    with one_sentence("quantize.compare_ranges"):
        main()
