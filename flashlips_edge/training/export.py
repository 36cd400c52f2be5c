"""Last stage of the recipe: trained weights to a bundle of ONNX graphs, each checked against torch.

python -m flashlips_edge.training.export --weights work/nano --out flashlips_edge/bundles/nano
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
import typer
from torch import Tensor, nn

from flashlips_edge.bundle import write_manifest
from flashlips_edge.errors import UserError
from flashlips_edge.models.audio_to_lips import AudioToLips
from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.editor import LIPS, EditorUNet
from flashlips_edge.models.lips import FACE_SIZE, LipsEncoder
from flashlips_edge.models.presets import load_preset
from flashlips_edge.models.speech_encoder import SpeechEncoder
from flashlips_edge.training.checkpoint import load_weights
from flashlips_edge.training.command import command
from flashlips_edge.training.latents import MASK

OPSET = 18
TOLERANCE = 2e-3  # largest difference between torch and ONNX Runtime, in units of the output's own largest value
GOLDEN_SEED = 12
LICENCE = Path(__file__).parents[2] / "LICENSE"


def networks(preset: dict[str, Any], weights: Path | None) -> dict[str, nn.Module]:
    """The networks by name, trained, or as initialised when ``weights`` is None."""
    models: dict[str, nn.Module] = {
        "autoencoder": Autoencoder(**preset["autoencoder"]),
        "editor": EditorUNet(**preset["editor"]),
        "lips_encoder": LipsEncoder(**preset["lips"]),
        "speech_encoder": SpeechEncoder(**preset["speech_encoder"]),
        "audio_to_lips": AudioToLips(**preset["audio_to_lips"]),
    }
    for name, model in models.items():
        path = weights / f"{name}.safetensors" if weights else None
        if path is not None:
            if not path.is_file():
                raise UserError(f"--weights {weights}: {path.name} is missing; run make train first")
            load_weights(path, model)
        model.eval().requires_grad_(False)
    return models


def examples(preset: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Golden inputs of every graph, batch 2, drawn from a fixed seed."""
    random = torch.Generator().manual_seed(GOLDEN_SEED)
    size, (h, w), c = preset["crop_size"], preset["editor"]["size"], preset["editor"]["latent_channels"]
    flow = preset["audio_to_lips"]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    return {
        "latent_encoder": {"image": torch.rand((2, 3, size, size), generator=random)},
        "editor": {"latent": normal(2, c, h, w), "reference_latents": normal(2, flow["references"] * c, h, w), "lips": normal(2, LIPS)},
        "latent_decoder": {"edited_latent": normal(2, c, h, w)},
        "lips_encoder": {"face": torch.rand((2, 3, FACE_SIZE, FACE_SIZE), generator=random)},
        "speech_encoder": {"audio": torch.rand((2, 4 * flow["window"], preset["speech_encoder"]["mels"]), generator=random)},
        "audio_to_lips": {
            "noise": normal(2, flow["window"], LIPS),
            "speech": normal(2, flow["window"], flow["speech_width"]),
            "emotion": torch.zeros(2, flow["emotions"]),
            "reference_lips": normal(2, flow["references"], LIPS),
            "previous_lips": normal(2, flow["previous"], LIPS),
        },
    }


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
        axes["audio"][1], axes["speech"][1] = "features", "steps"
    if name == "latent_decoder":  # convolutions alone: the rows above the mouth need not be decoded
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


def export(preset_name: str, weights: Path | None, out: Path, card: Path | None = None) -> Path:
    """Make the bundle in a folder beside ``out`` and put it in its place when it is whole."""
    preset = load_preset(preset_name)
    models = networks(preset, weights)
    models["latent_encoder"], models["latent_decoder"] = models["autoencoder"].encoder, models["autoencoder"].decoder  # type: ignore[assignment]
    lips = {"opening": [1.0] + [0.0] * 11, "closed": [0.0] * 12}
    if weights:
        lips = json.loads((weights / "lips.json").read_text())
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle.") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        graphs = {name: export_graph(name, models[name], inputs, folder) for name, inputs in examples(preset).items()}
        shutil.copyfile(LICENCE, folder / "LICENSE")
        if card is not None:
            shutil.copyfile(card, folder / "MODEL_CARD.md")
        fields = {
            "preset": preset_name,
            "crop_size": preset["crop_size"],
            "editor_accepts_masked": True,
            "mask": list(MASK),
            "lips": lips,
            "audio_to_lips": {k: preset["audio_to_lips"][k] for k in ("window", "previous", "references")}
            | {"emotion": preset["audio_to_lips"]["emotions"]},
            "graphs": graphs,
            "trained": weights is not None,
            "licence": "Apache-2.0",
        }
        write_manifest(folder, fields)
        old = Path(temporary) / "old"
        if out.exists():
            out.rename(old)
        folder.rename(out)
    return out


def main(
    weights: Annotated[Path | None, typer.Option(help="folder of trained weights; none: an untrained bundle, for tests")] = None,
    out: Annotated[Path, typer.Option(help="folder of the bundle")] = Path("flashlips_edge/bundles/nano"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper")] = "nano",
    card: Annotated[Path | None, typer.Option(help="the model card to put in")] = None,
) -> None:
    """Export trained weights as a bundle."""
    folder = export(preset, weights, out, card)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    command(main)
