"""A frame on a GPU in torch: encode, edit and decode, for both editors and both autoencoders of a preset, in bf16 and FP8.

    python -m benchmarks.gpu_frame --preset paper --out benchmarks/gpu_frame.json
    python -m benchmarks.gpu_frame --rehearse                       # preset nano on the CPU: checks everything, times nothing

Weights are noise: speed does not depend on them. Each way is a CUDA graph and the median of 50 runs, every one from a cold cache. Before
it is timed its pictures are compared with float32's. ``bf16`` is plain torch; ``kernels`` has our Triton kernels swapped in; ``compile``
is torch.compile, which takes minutes and is done when it is asked for; ``fp8`` has the linear layers in FP8 (e4m3, one scale for a
tensor, that of the activations found anew at each call) and bf16 elsewhere: torch has no convolution in FP8, so that it concerns the
transformer above all. The SDXL VAE is diffusers' own, at its size; without diffusers it is left out.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kernels
from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes
from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.editor import EditorUNet
from flashlips_edge.models.editor_transformer import EditorTransformer
from flashlips_edge.models.layers import LIPS
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.sdxl import SDXLAutoencoder
from kernels.batch import check_batch

EDITORS = {"U-Net": ("editor", EditorUNet), "transformer": ("editor_transformer", EditorTransformer)}
WAYS = ("bf16", "kernels", "compile", "fp8")
DEFAULT = ("bf16", "kernels", "fp8")  # compiling takes minutes for each network
MOST_WRONG = {"fp8": 0.5}  # of the answer's deviation: noise for weights is hard on few bits, and a fault is wrong by more
WRONG = 0.1
SDXL = {  # config.json of the published VAE
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
}
Row = dict[str, Any]


class Fp8Linear(nn.Module):
    """A linear layer whose product is of FP8 numbers: x [..., in] -> bf16 [..., out]."""

    LARGEST = 448.0  # of float8_e4m3fn

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.scale = linear.weight.abs().amax().float() / self.LARGEST
        self.weight = (linear.weight / self.scale).to(torch.float8_e4m3fn)

    def forward(self, x: Tensor) -> Tensor:
        flat, each = x.flatten(0, -2).contiguous(), F.ScalingType.TensorWise  # a transposed map at batch 1 would lie by columns
        scale = flat.abs().amax().float().clamp_min(1e-12) / self.LARGEST
        narrow = (flat / scale).to(torch.float8_e4m3fn)
        y = F.scaled_mm(narrow, self.weight.t(), scale, each, self.scale, each, bias=self.bias, output_dtype=torch.bfloat16)
        return y.unflatten(0, x.shape[:-1])


def with_fp8(module: nn.Module) -> nn.Module:
    """``module`` with its linear layers in FP8, but for those whose sizes its matrix units do not take. Changes it."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and not child.in_features % 16 and not child.out_features % 16:
            setattr(module, name, Fp8Linear(child))
        else:
            with_fp8(child)
    return module


class Frame(nn.Module):
    """image [B, 3, S, S], reference_latents [B, K*C, h, w], lips [B, 12] -> the edited image."""

    def __init__(self, autoencoder: nn.Module, editor: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.editor = autoencoder.encoder, autoencoder.decoder, editor

    def forward(self, image: Tensor, references: Tensor, lips: Tensor) -> Tensor:
        return self.decoder(self.editor(self.encoder(image), references, lips))


def autoencoders(preset: dict[str, Any], small: bool) -> dict[str, nn.Module]:
    """Ours and, where diffusers is installed, the SDXL VAE's architecture; ``small``: for a rehearsal."""
    result: dict[str, nn.Module] = {"ours": Autoencoder(**preset["autoencoder"])}
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        print("the SDXL VAE is left out: diffusers is not installed", file=sys.stderr)
        return result
    sizes = {"block_out_channels": [32] * 4, "latent_channels": preset["autoencoder"]["latent_channels"]} if small else {}
    if not small and preset["autoencoder"]["latent_channels"] != SDXL["latent_channels"]:
        return result
    return result | {"SDXL VAE": SDXLAutoencoder(AutoencoderKL(**(SDXL | sizes)))}


def in_way(way: str, module: nn.Module) -> nn.Module:
    """A copy of a bf16 module that computes in one of WAYS. UserError where this torch cannot."""
    module = copy.deepcopy(module)
    if way == "kernels":
        return kernels.apply(module)
    if way == "compile":
        for name, part in list(module.named_children()):
            setattr(module, name, torch.compile(part, dynamic=False))
    if way == "fp8":
        if not hasattr(F, "scaled_mm"):
            raise UserError(f"torch {torch.__version__} has no scaled_mm; 2.10 or newer is needed")
        return with_fp8(module)
    return module


@torch.no_grad()
def rows_of(
    preset_name: str, batches: list[int], ways: list[str], device: str, clock: Callable[[Callable[[], Any]], float] | None
) -> Iterator[Row]:
    """A row for each editor, autoencoder, way and batch; ``clock`` gives the milliseconds of a call, none of a rehearsal's. Where a way
    fails its row is left out, and why is said once."""
    from kernels.bench.cases import materialise  # after main has said who runs Triton: kernels are decorated at import

    preset = load_preset(preset_name)
    size, (h, w), c = preset["crop_size"], preset["editor"]["size"], preset["editor"]["latent_channels"]
    wholes = autoencoders(preset, device == "cpu")
    said: set[str] = set()
    for (editor_name, (key, kind)), (autoencoder_name, autoencoder) in product(EDITORS.items(), wholes.items()):
        with torch.device("meta"):
            frame = Frame(autoencoder, kind(**preset[key]))
        torch.manual_seed(0)
        exact = materialise(frame, device, torch.float32)
        plain = copy.deepcopy(exact).to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for batch in batches:
            image = torch.rand(batch, 3, size, size, device=device)
            references = torch.randn(batch, preset[key]["references"] * c, h, w, device=device)
            inputs = (image, references, torch.randn(batch, LIPS, device=device))
            truth = exact(*inputs)
            narrow = tuple(x.to(torch.bfloat16) for x in inputs)
            for way in ways:
                named = {"preset": preset_name, "editor": editor_name, "autoencoder": autoencoder_name, "way": way, "batch": batch}
                try:
                    yield named | _measure(in_way(way, plain), narrow, truth, MOST_WRONG.get(way, WRONG), clock)
                except Exception as error:  # of what compiles and runs it, whatever that is: the other ways are measured
                    why = f"{way} is left out: {error}".partition("\n")[0]
                    if why not in said:
                        print(why, file=sys.stderr)
                    said.add(why)
                torch.compiler.reset()


def _measure(frame: Any, inputs: tuple[Tensor, ...], truth: Tensor, most: float, clock: Callable[[Callable[[], Any]], float] | None) -> Row:
    """Error and milliseconds of a frame's whole way and of its parts. A way that is wrong is not timed."""
    error = float((frame(*inputs).float() - truth).norm() / (truth - truth.mean()).norm())
    if clock is None or not error < most:
        return {"error": round(error, 4)}
    image, references, lips = inputs
    latent = frame.encoder(image)
    parts: dict[str, Callable[[], Any]] = {
        "encode_ms": lambda: frame.encoder(image),
        "edit_ms": lambda: frame.editor(latent, references, lips),
        "decode_ms": lambda: frame.decoder(latent),
        "frame_ms": lambda: frame(*inputs),
    }
    times = {name: clock(run) for name, run in parts.items()}
    fps = 1e3 * len(image) / times["frame_ms"]
    return {"error": round(error, 4), **{name: round(value, 4) for name, value in times.items()}, "fps": round(fps, 1)}


def table(rows: list[Row]) -> str:
    """The rows as text; a dash where a way was wrong or not timed."""
    columns = ["preset", "editor", "autoencoder", "way", "batch", "error", "encode_ms", "edit_ms", "decode_ms", "frame_ms", "fps"]
    cells = [columns, *([str(row.get(column, "-")) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells)


def main() -> None:
    parser = Parser(prog="python -m benchmarks.gpu_frame", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper", help="the network sizes (default: %(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="frames at once (default: 1 and 8)")
    parser.add_argument("--ways", nargs="+", default=list(DEFAULT), choices=WAYS, help="default: all but compile")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu_frame.json"), help="default: %(default)s")
    parser.add_argument("--rehearse", action="store_true", help="preset nano on the CPU: checks everything, times nothing")
    options = parser.parse_args()
    check_batch(*options.batch)
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
        device, clock = "cpu", None
        options.preset, options.batch = "nano", [1]
    elif not torch.cuda.is_available():
        raise UserError("there is no GPU to time a frame on; --rehearse runs everything but the clock without one")
    else:
        from kernels.bench.timing import milliseconds as clock

        device = "cuda"
    rows: list[Row] = []
    for row in rows_of(options.preset, options.batch, options.ways, device, clock):
        rows.append(row)
        print(json.dumps(row), flush=True)
        if not options.rehearse:  # as far as it comes
            about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
            write_bytes(options.out, (json.dumps(about, indent=1) + "\n").encode())
    missing = [way for way in options.ways if way not in {row["way"] for row in rows}]
    if missing and (options.rehearse or not rows):
        raise UserError(f"--ways {' '.join(missing)}: left out, as said above")
    print(table(rows))


if __name__ == "__main__":
    with one_sentence("benchmarks.gpu_frame"):
        main()
