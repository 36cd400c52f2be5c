"""Whether the graphs of a bundle fit its manifest and one another, before any of them is loaded."""

from __future__ import annotations

import re
from pathlib import Path

from flashlips_edge import onnx_shapes
from flashlips_edge.errors import UserError

# One letter is one size throughout: S of the crop, C, h and w of its latent, D of a step of speech, W, P and E as the manifest says;
# * is any, and so is an axis that a graph leaves free. Where there are two, either is right: ours hears log-mel, wav2vec 2.0 the waveform.
Wanted = dict[str, tuple[str, ...]]
SHAPES: dict[str, tuple[Wanted, Wanted]] = {
    "latent_encoder": ({"image": ("* 3 S S",)}, {"latent": ("* C h w",)}),
    "editor": ({"latent": ("* C h w",), "reference_latents": ("* 4C h w",), "lips": ("* 12",)}, {"edited_latent": ("* C h w",)}),
    "latent_decoder": ({"edited_latent": ("* C h w",)}, {"image": ("* 3 S S",)}),
    "lips_encoder": ({"face": ("* 3 F F",)}, {"lips": ("* 12",)}),
    "speech_encoder": ({"audio": ("* * 80", "* *")}, {"speech": ("* * D",)}),
    "audio_to_lips": (
        {
            "noise": ("* W 12",),
            "speech": ("* W D",),
            "emotion": ("* E",),
            "reference_lips": ("* 4 12",),
            "previous_lips": ("* P 12",),
        },
        {"lips": ("* W 12",)},
    ),
}


def check(graphs: dict[str, Path], crop_size: int, window: int, previous: int, emotion: int) -> None:
    """Raises UserError, a sentence about the first graph of the files `graphs` that is none, or takes or gives something else."""
    sizes = {"S": crop_size, "W": window, "P": previous, "E": emotion}
    for graph, wanted in SHAPES.items():
        try:
            ends = onnx_shapes.read(graphs[graph])
        except (OSError, ValueError):
            raise UserError(f"{graphs[graph]}: not an ONNX graph; make the bundle again with make bundle") from None
        for tensors, want, verb in zip(ends, wanted, ("takes", "gives")):
            if (problem := _problem(tensors, want, sizes)) is not None:
                fault = f"the graph {graph} {verb} {problem}"
                raise UserError(f"{graphs[graph]}: {fault}, which the manifest asks for; make the bundle again with make bundle")


def _problem(tensors: dict[str, onnx_shapes.Shape], wanted: Wanted, sizes: dict[str, int]) -> str | None:
    """The first tensor that is not as wanted, and what is. `sizes` learns what letters stand for."""
    if tensors.keys() != wanted.keys():
        return f"{', '.join(sorted(tensors)) or 'nothing'} instead of {', '.join(sorted(wanted))}"
    for name, shape in tensors.items():
        if not any(_fits(shape, each.split(), sizes) for each in wanted[name]):
            right = " or ".join(f"[{', '.join(_size(axis, sizes) for axis in each.split())}]" for each in wanted[name])
            return f"{name} [{', '.join(str(axis) if isinstance(axis, int) else '*' for axis in shape)}] instead of {right}"
    return None


def _fits(shape: onnx_shapes.Shape, wanted: list[str], sizes: dict[str, int]) -> bool:
    if len(shape) != len(wanted):
        return False
    for axis, want in zip(shape, wanted):
        if isinstance(axis, int) and want[-1].isalpha():
            sizes.setdefault(want[-1], axis // int(want[:-1] or 1))
        if isinstance(axis, int) and _size(want, sizes) not in ("*", str(axis)):
            return False
    return True


def _size(want: str, sizes: dict[str, int]) -> str:
    """What an axis must be: of 4C, four times the size C; a letter whose size is not known yet is any."""
    factor, letter = re.fullmatch(r"(\d*)(.*)", want).groups()  # type: ignore[union-attr]
    if not letter:
        return factor
    return str(int(factor or 1) * sizes[letter]) if letter in sizes else "*"
