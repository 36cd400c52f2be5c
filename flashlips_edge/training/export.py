"""Last stage of the recipe: trained weights to a bundle of ONNX graphs, each checked against torch.

python -m flashlips_edge.training.export --weights work/nano --out flashlips_edge/bundles/nano
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import onnxruntime
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.bundle import write_manifest
from flashlips_edge.errors import UserError
from flashlips_edge.files import make_folder
from flashlips_edge.models.networks import examples, graphs, networks
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.sdxl import SDXLDecoder, load_sdxl
from flashlips_edge.models.wav2vec import Wav2Vec, load_wav2vec
from flashlips_edge.training.boxes import MASK
from flashlips_edge.training.checkpoint import load_constants, load_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import Backbone, BackboneOption
from flashlips_edge.training.latents import SdxlFolder

OPSET = 18
TOLERANCE = 2e-3  # largest difference between torch and ONNX Runtime, in units of the output's own largest value
LICENCE = Path(__file__).parents[2] / "LICENSE"
CARD = "MODEL_CARD.md"
Wav2VecFolder = Annotated[Optional[Path], typer.Option("--wav2vec", help="folder of wav2vec 2.0 base, for presets that hear with it")]  # noqa: UP045


def load_graphs(
    preset: dict[str, Any], weights: Path | None, backbone: Backbone = Backbone.UNET, sdxl: Path | None = None, wav2vec: Path | None = None
) -> dict[str, nn.Module]:
    """The networks of the bundle's graphs by name: trained, or as initialised when ``weights`` is None; the SDXL VAE and wav2vec
    2.0 where their folders are given.

    Raises:
        UserError: a file of weights is missing.
    """
    if wav2vec is not None and "wav2vec" not in preset:
        raise UserError(f"--wav2vec {wav2vec}: this preset hears log-mel; only a preset with the entry wav2vec takes it")
    if wav2vec is None and weights is not None and "wav2vec" in preset:
        raise UserError("--wav2vec is missing: this preset hears with wav2vec 2.0 base; name the folder that holds it")
    models, given = networks(preset), {}
    if sdxl is not None:
        given["autoencoder"] = load_sdxl(sdxl)
    if wav2vec is not None:
        given["speech_encoder"] = load_wav2vec(wav2vec)
    for other in set(Backbone) - {backbone}:
        del models[other.value]
    for name in [name for name in models if name not in given]:
        path = weights / f"{name}.safetensors" if weights else None
        if path is not None:
            if not path.is_file():
                raise UserError(f"--weights {weights}: {path.name} is missing; run make train first")
            load_weights(path, models[name])
    models |= given
    models["editor"] = models.pop(backbone.value)
    return {name: graph.eval().requires_grad_(False) for name, graph in graphs(models).items()}


OUTPUTS = {
    "latent_encoder": "latent",
    "editor": "edited_latent",
    "latent_decoder": "image",
    "lips_encoder": "lips",
    "speech_encoder": "speech",
    "audio_to_lips": "lips",
}


def export_graph(name: str, model: nn.Module, inputs: dict[str, Tensor], folder: Path) -> dict[str, Any]:
    """Write ``folder/<name>.onnx`` and its golden file; compare torch with ONNX Runtime; the manifest's entry."""
    path = folder / f"{name}.onnx"
    axes: dict[str, dict[int, str]] = {key: {0: "batch"} for key in (*inputs, OUTPUTS[name])}
    if name == "speech_encoder":
        axes["audio"][1], axes["speech"][1] = "samples" if isinstance(model, Wav2Vec) else "features", "steps"
    if name == "latent_decoder" and not isinstance(model, SDXLDecoder):  # convolutions alone: the rows above the mouth need not be decoded
        axes["edited_latent"][2], axes["image"][2] = "rows", "height"
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=[OUTPUTS[name]],
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    expected = model(*inputs.values()).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    error = float(np.abs(given - expected).max() / np.abs(expected).max())
    if not error < TOLERANCE:
        raise UserError(f"graph {name}: ONNX Runtime differs from torch by {error:.1e} of the largest output, {TOLERANCE:.0e} is allowed")
    (folder / "golden").mkdir(exist_ok=True)
    arrays = {f"in.{k}": v.numpy() for k, v in inputs.items()} | {f"out.{OUTPUTS[name]}": expected}
    np.savez_compressed(folder / "golden" / f"{name}.npz", **arrays)
    return {
        "file": path.name,
        "precision": "fp32",
        "inputs": {v.name: v.shape for v in session.get_inputs()},
        "outputs": {v.name: v.shape for v in session.get_outputs()},
        "golden_error": error,
        "golden_tolerance": TOLERANCE,
    }


def card_of(weights: Path) -> Path | None:
    """The model card that lies with the weights; None where there is none."""
    return weights / CARD if (weights / CARD).is_file() else None


def check_out(out: Path) -> None:
    """Raises UserError where ``out`` is something else than a bundle, which a new bundle would take the place of."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file()):
        raise UserError(f"--out {out}: is there and is no bundle; name a new folder, or one that holds a bundle")


def export(
    preset_name: str,
    weights: Path | None,
    out: Path,
    card: Path | None = None,
    backbone: Backbone = Backbone.UNET,
    sdxl: Path | None = None,
    wav2vec: Path | None = None,
) -> Path:
    """Make the bundle in a folder beside ``out`` and put it in its place when it is whole, with the weights' own card unless told."""
    preset = load_preset(preset_name)
    check_out(out)
    models = load_graphs(preset, weights, backbone, sdxl, wav2vec)
    others = [f"{name} under its own" for name, folder in (("the SDXL VAE", sdxl), ("wav2vec 2.0", wav2vec)) if folder is not None]
    lips = {"opening": [1.0] + [0.0] * 11, "closed": [0.0] * 12}
    if weights:
        lips = load_constants(weights)
        card = card or card_of(weights)
    with tempfile.TemporaryDirectory(dir=make_folder(out.parent), prefix=".bundle.") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        graphs = {name: export_graph(name, models[name], inputs, folder) for name, inputs in examples(preset).items()}
        shutil.copyfile(LICENCE, folder / "LICENSE")
        if card is not None:
            shutil.copyfile(card, folder / CARD)
        fields = {
            "preset": preset_name,
            "crop_size": preset["crop_size"],
            "editor_accepts_masked": True,
            "mask": list(MASK.pixels(preset["crop_size"])),
            "lips": lips,
            "audio_to_lips": {k: preset["audio_to_lips"][k] for k in ("window", "previous", "references")}
            | {"emotion": preset["audio_to_lips"]["emotions"]},
            "graphs": graphs,
            "trained": weights is not None,
            "licence": ", ".join(["Apache-2.0", *others]),
        }
        write_manifest(folder, fields)
        old = Path(temporary) / "old"
        if out.exists():
            out.rename(old)
        folder.rename(out)
    return out


def main(
    weights: Annotated[Path | None, typer.Option(help="folder of trained weights; none: an untrained bundle, for tests")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the bundle; default, of trained weights: flashlips_edge/bundles/PRESET")
    ] = None,
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    card: Annotated[Path | None, typer.Option(help="the model card to put in; default: the weights' own")] = None,
    backbone: BackboneOption = Backbone.UNET,
    sdxl: SdxlFolder = None,
    wav2vec: Wav2VecFolder = None,
) -> None:
    """Export trained weights as a bundle."""
    if out is None:
        if weights is None:
            raise UserError("--out is missing: an untrained bundle does not take the place of a shipped one")
        out = Path("flashlips_edge/bundles") / preset
    folder = export(preset, weights, out, card, backbone, sdxl, wav2vec)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    command(main)
