"""The networks of a preset by name, inputs to call them with, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from flashlips_edge.models.audio_to_lips import AudioToLips
from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.editor import EditorUNet
from flashlips_edge.models.editor_transformer import EditorTransformer
from flashlips_edge.models.layers import LIPS
from flashlips_edge.models.lips import FACE_SIZE, LipsEncoder
from flashlips_edge.models.speech_encoder import SpeechEncoder
from flashlips_edge.models.wav2vec import SAMPLES_PER_STEP, Wav2Vec

FEATURES_PER_STEP = 4  # log-mel steps in one of lips


def networks(preset: dict[str, Any]) -> dict[str, nn.Module]:
    """Every network of ``preset``, as initialised."""
    return {
        "autoencoder": Autoencoder(**preset["autoencoder"]),
        "editor": EditorUNet(**preset["editor"]),
        "editor_transformer": EditorTransformer(**preset["editor_transformer"]),
        "lips_encoder": LipsEncoder(**preset["lips"]),
        "speech_encoder": Wav2Vec(**preset["wav2vec"]) if "wav2vec" in preset else SpeechEncoder(**preset["speech_encoder"]),
        "audio_to_lips": AudioToLips(**preset["audio_to_lips"]),
    }


def graphs(models: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The networks as they run: the autoencoder's halves apart."""
    halves = {"latent_encoder": models["autoencoder"].encoder, "latent_decoder": models["autoencoder"].decoder}
    return {**halves, **{name: model for name, model in models.items() if name != "autoencoder"}}  # type: ignore[dict-item]


def examples(preset: dict[str, Any], batch: int = 2, seed: int = 12) -> dict[str, dict[str, Tensor]]:
    """Inputs of every graph by name, drawn from ``seed``; speech is a window of audio to lips."""
    random = torch.Generator().manual_seed(seed)
    size, (h, w), c = preset["crop_size"], preset["editor"]["size"], preset["editor"]["latent_channels"]
    flow, face = preset["audio_to_lips"], preset["lips"].get("face_size", FACE_SIZE)
    steps = flow["window"]

    def normal(*shape: int) -> Tensor:
        return torch.randn((batch, *shape), generator=random)

    def uniform(*shape: int) -> Tensor:
        return torch.rand((batch, *shape), generator=random)

    return {
        "latent_encoder": {"image": uniform(3, size, size)},
        "editor": {"latent": normal(c, h, w), "reference_latents": normal(preset["editor"]["references"] * c, h, w), "lips": normal(LIPS)},
        "latent_decoder": {"edited_latent": normal(c, h, w)},
        "lips_encoder": {"face": uniform(3, face, face)},
        "speech_encoder": {
            "audio": normal(SAMPLES_PER_STEP * steps)
            if "wav2vec" in preset
            else uniform(FEATURES_PER_STEP * steps, preset["speech_encoder"]["mels"])
        },
        "audio_to_lips": {
            "noise": normal(steps, LIPS),
            "speech": normal(steps, flow["speech_width"]),
            "emotion": torch.zeros(batch, flow["emotions"]),
            "reference_lips": normal(flow["references"], LIPS),
            "previous_lips": normal(flow["previous"], LIPS),
        },
    }


@dataclass(frozen=True)
class Cost:
    """Parameters, and floating-point operations of one call: a picture, or a window of speech."""

    parameters: int
    flops: int


def costs(preset: dict[str, Any]) -> dict[str, Cost]:
    """What each graph of ``preset`` costs at batch 1, counted without computing."""
    with torch.device("meta"):
        models = graphs(networks(preset))
    inputs = examples(preset, batch=1)
    inputs["editor_transformer"] = inputs["editor"]
    result = {}
    for name, model in models.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(*(value.to("meta") for value in inputs[name].values()))
        result[name] = Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops())
    return result
