"""python -m targets > docs/targets.md: the devices and their facts, as a document."""

from __future__ import annotations

from flashlips_edge.arguments import Parser, one_sentence
from kernels.table import Target, find_target, names


def document() -> str:
    """Markdown of all targets, as it stands in docs/targets.md."""
    targets = [find_target(name) for name in names()]
    lines = [
        "# Devices",
        "",
        "Written by `python -m targets > docs/targets.md` from `targets/<name>.yaml`; a test compares the two.",
        "",
        "`make engine TARGET=<name>` builds for one of them. Low precision is for layers that bear it, the rest computes in the other.",
        "",
        "| target | device | engine | preset | precision | newest opset | frames at once | software |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(target) for target in targets),
        "",
        "| target | compute capability | SMs | memory, GB | GB/s | fp16 TFLOP/s | FP8 | shared KiB of a block | power modes | source |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_chip_row(target) for target in targets if target.chip is not None),
        "",
        "What an SM holds is from the CUDA C++ Programming Guide (Technical Specifications per Compute Capability), and the same",
        "in NVIDIA's libcu++ (`cuda/__device/arch_traits.h`, sm_87 to sm_120). The newest opset is that of the oldest TensorRT: 20 up to",
        "10.8, 22 from 10.9 on (onnx-tensorrt, `docs/operators.md` of the release). What JetPack holds is from its release notes.",
    ]
    return "\n".join(lines) + "\n"


def _row(target: Target) -> str:
    software = "; ".join(f"{s.name}: CUDA {s.cuda}, TensorRT {s.tensorrt}, Python {s.python}" for s in target.systems)
    precision = f"{' or '.join(target.precision.formats)}, rest {target.precision.rest}"
    cells = (
        target.name,
        target.device,
        target.engine,
        target.preset,
        precision,
        target.opset,
        target.limits.batch,
        software or "ONNX Runtime",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _chip_row(target: Target) -> str:
    chip = target.chip
    assert chip is not None
    modes = ", ".join(f"{mode} ({number})" for mode, number in chip.power_modes.items()) or "-"
    rates = (f"{chip.memory / 1e9:g}", f"{chip.bandwidth / 1e9:g}", f"{chip.matmul / 1e12:g}")
    shared = chip.limits.shared_per_block >> 10
    cells = (target.name, f"sm_{chip.capability}", chip.processors, *rates, "yes" if chip.fp8 else "no", shared, modes, chip.source)
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    Parser(prog="python -m targets", description="The devices and their facts, as a document: docs/targets.md.").parse_args()
    print(document(), end="")


if __name__ == "__main__":
    with one_sentence("targets"):
        main()
