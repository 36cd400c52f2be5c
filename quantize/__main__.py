"""python -m quantize --preset nano --target cpu: a bundle's graphs in low precision, layer by layer, with proof."""

from __future__ import annotations

from pathlib import Path

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from kernels.table import names
from quantize import calibration, plots, targets
from quantize.answers import decibels
from quantize.build import Built, build, ranked
from quantize.policy import Budget

SHOWN = 15  # layers of the ranked table


def main() -> None:
    parser = Parser(prog="python -m quantize", description=__doc__)
    parser.add_argument("--preset", default="nano", help="name or folder of the fp32 bundle, nano unless named")
    parser.add_argument("--target", required=True, help=", ".join(names()))
    parser.add_argument("--format", help="int8 or fp8; the target's own unless named")
    parser.add_argument("--calibration", type=Path, help="folder of videos; the recorded training data unless named")
    parser.add_argument(
        "--budget-db", type=float, default=Budget.mouth_db, help="least PSNR of the mouth box against fp32; 40 unless named"
    )
    parser.add_argument("--out", type=Path, help="folder of the bundle; work/quantised/PRESET-TARGET unless named")
    parser.add_argument("--finetune", type=int, default=0, help="steps of quantisation-aware fine-tuning, none unless named")
    options = parser.parse_args()
    target, form = targets.find(options.target, options.format)
    if not 20 <= options.budget_db <= 100:
        raise UserError(f"--budget-db {options.budget_db:g}: a budget is 20 to 100 dB")
    if options.finetune < 0:
        raise UserError(f"--finetune {options.finetune}: a number of steps is 0 or more")
    bundle = Bundle.open(options.preset)
    if bundle.manifest.get("quantisation"):
        raise UserError(f"--preset {options.preset}: this bundle is quantised already; name the fp32 bundle that it was made from")
    out = options.out or Path("work/quantised") / f"{bundle.preset}-{options.target}"
    videos = options.calibration or calibration.default_folder()
    budget = Budget(mouth_db=options.budget_db)
    built = build(bundle, options.target, target, form, videos, budget, out, options.finetune)
    plots.sensitivity(built.damages, built.low, out.with_suffix(".png"))
    _tell(built)


def _tell(built: Built) -> None:
    bench, rest = built.bench, built.bench.target.rest
    print(f"{'layer alone at ' + bench.form:<52} {'mouth dB':>8} {'lips':>9} {'speech':>9} {'saves us':>9}  now")
    for layer in ranked(built.damages)[:SHOWN]:
        damage = built.damages[layer]
        figures = f"{decibels(damage.picture):8.1f} {1 - damage.lips:9.6f} {1 - damage.spoken:9.6f}"
        saved = 1e6 * bench.target.saving(layer.flops, layer.weights)
        print(f"{layer.graph + ' ' + layer.name:<52} {figures} {saved:9.1f}  {bench.form if layer in built.low else rest}")
    print(f"{'graph':<16} {'ranges':<11} {'operations low':>14} {'size':>6}")
    for name in bench.rules:
        size = (built.folder / bench.bundle.manifest["graphs"][name]["file"]).stat().st_size / bench.bundle.graph_path(name).stat().st_size
        print(f"{name:<16} {bench.rules[name]:<11} {bench.share(name, built.low):>14.0%} {size:>6.2f}")
    for sentence in built.missed:
        print(sentence)
    quality, total = built.quality, sum(path.stat().st_size for path in built.folder.rglob("*") if path.is_file())
    print(
        f"{built.folder}: {total / 1e6:.1f} MB, {len(built.low)} of {len(bench.layers)} layers in {bench.form}; on the calibration set "
        f"mouth {quality.mouth_db:.1f} dB (worst frame {quality.worst_db:.1f}), lips {quality.lips:.5f}, speech {quality.opening:.4f}"
    )


if __name__ == "__main__":
    with one_sentence("quantize"):
        main()
