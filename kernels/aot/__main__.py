"""python -m kernels.aot --target orin --out FOLDER: compile what a preset needs, and say how each kernel fits the chip."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.errors import UserError
from flashlips_edge.models.presets import load_preset
from kernels.aot.compile import compile_kernel
from kernels.aot.folder import check, write
from kernels.batch import check_batch
from kernels.chips import CHIPS, find_chip
from kernels.precision import INTERPRETED
from kernels.specialisation import collect, operations


def main() -> None:
    parser = Parser(prog="python -m kernels.aot", description="A preset's kernels as cubin and PTX, without a GPU.")
    parser.add_argument("--target", required=True, help=f"the chip: {', '.join(CHIPS)}")
    parser.add_argument("--out", type=Path, required=True, help="the folder that receives cubins, PTX and manifest.json")
    parser.add_argument("--preset", default="edge", help="the network sizes, edge unless named")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="frames at once, 1 unless named")
    parser.add_argument("--operation", nargs="+", default=operations(), help="the operations in kernels/, all unless named")
    arguments = parser.parse_args()
    if INTERPRETED.value:
        raise UserError("TRITON_INTERPRET is set, and interpreted kernels cannot be compiled: unset it")
    check_batch(*arguments.batch)
    if unknown := set(arguments.operation) - set(operations()):
        raise UserError(f"--operation {sorted(unknown)[0]!r} is not one of {', '.join(operations())}")
    chip = find_chip(arguments.target)
    preset = load_preset(arguments.preset)
    everything = [each for batch in arguments.batch for each in collect(preset, batch, chip.capability)]
    wanted = [each for each in everything if each.operation in arguments.operation]
    compiled = [compile_kernel(each, chip) for each in tqdm(wanted, unit="kernel", leave=False)]
    check(compiled, chip)
    manifest = write(arguments.out, compiled, chip, arguments.preset, arguments.batch)
    print(f"{'kernel':<52} {'registers':>9} {'shared':>8} {'blocks':>6} {'warps':>6}  limited by")
    for entry in manifest["kernels"]:
        fits = entry["occupancy"]
        row = f"{entry['name']:<52} {entry['registers']:>9} {entry['shared']:>8} {fits['blocks']:>6} {fits['share']:>6.0%}"
        print(f"{row}  {fits['limited_by']}")
    size = sum((arguments.out / entry["cubin"]).stat().st_size for entry in manifest["kernels"])
    print(f"{arguments.out}: {len(compiled)} kernels for {chip.device} (sm_{chip.capability}), {size >> 10} KiB, none spills")


if __name__ == "__main__":
    with one_sentence("kernels.aot"):
        main()
