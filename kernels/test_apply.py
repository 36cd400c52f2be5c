"""Networks with kernels applied give what the ones without give, for every preset."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import kernels
from flashlips_edge.models.audio_to_lips import AudioToLips
from flashlips_edge.models.editor import EditorUNet
from flashlips_edge.models.editor_transformer import EditorTransformer
from flashlips_edge.models.lips import LipsEncoder
from flashlips_edge.models.networks import examples
from flashlips_edge.models.presets import load_preset
from kernels.testing import DEVICE, NETWORK_TOLERANCE, assert_close

NETWORKS: dict[str, tuple[type[nn.Module], str]] = {  # and the preset's key of their sizes
    "editor": (EditorUNet, "editor"),
    "editor_transformer": (EditorTransformer, "editor_transformer"),
    "lips_encoder": (LipsEncoder, "lips"),
    "audio_to_lips": (AudioToLips, "audio_to_lips"),
}


def small(preset: dict[str, Any]) -> dict[str, Any]:
    """The preset's classes and options at sizes for the interpreter."""
    preset = copy.deepcopy(preset)
    unet, transformer, flow = preset["editor"], preset["editor_transformer"], preset["audio_to_lips"]
    levels = len(unet["widths"])
    latent = {"size": [16, 16], "rows": [8, 16], "reference_width": 8, "embedding": 24}
    unet |= latent | {"widths": [16 * (level + 1) for level in range(levels)], "blocks": [1] * levels}
    unet["heads"] = [level + 1 if heads else 0 for level, heads in enumerate(unet.get("heads", [0] * levels))]
    transformer |= latent | {"stem_width": 16, "width": 48, "layers": 2, "heads": 3}
    flow |= {"speech_width": 24, "width": 48, "layers": 2, "heads": 2, "window": 9, "previous": 3, "steps": 2}
    preset["lips"] |= {"width": 8, "face_size": 32} if "face_size" in preset["lips"] else {"width": 8}
    return preset


def make(preset: dict[str, Any], name: str) -> tuple[nn.Module, list[torch.Tensor]]:
    """A network whose every parameter matters, as those that start at zero would hide what they stand behind; and its inputs."""
    kind, key = NETWORKS[name]
    model = kind(**preset[key])
    for parameter in model.parameters():
        deviation = 0.5 * parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        nn.init.normal_(parameter, std=deviation)
    inputs = examples(preset, batch=1)[name.removesuffix("_transformer")]
    return model.eval().to(DEVICE), [each.to(DEVICE) for each in inputs.values()]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["nano", "edge", "paper"])
def test_a_network_gives_the_same_with_kernels_and_without(name: str, network: str) -> None:
    preset = load_preset(name)
    if DEVICE == "cpu":
        preset = small(preset) if name != "nano" else preset | {"audio_to_lips": preset["audio_to_lips"] | {"steps": 2}}
    model, inputs = make(preset, network)
    with torch.no_grad():
        plain = model(*inputs)
        fused = kernels.apply(model)(*inputs)
        again = kernels.remove(model)(*inputs)
    assert_close(fused, plain, tolerance=NETWORK_TOLERANCE)
    assert_close(again, plain)


def test_apply_swaps_layers_and_remove_brings_them_back() -> None:
    model, _ = make(small(load_preset("edge")), "editor")
    kinds, parameters = [type(module) for module in model.modules()], dict(model.named_parameters())
    kernels.apply(model)
    swapped = {type(module).__name__ for module in model.modules()}
    assert {"FusedGroupNormSiLU", "FusedLipsConv", "FusedAttentionBlock"} <= swapped
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    kernels.apply(model)
    kernels.remove(model)
    assert [type(module) for module in model.modules()] == kinds


def test_channels_last_gives_the_same() -> None:
    model, inputs = make(small(load_preset("edge")), "editor")
    last = [each.to(memory_format=torch.channels_last) if each.dim() == 4 else each for each in inputs]
    with torch.no_grad():
        plain = model(*inputs)
        assert_close(kernels.apply(model.to(memory_format=torch.channels_last))(*last), plain, tolerance=NETWORK_TOLERANCE)  # type: ignore[call-overload]


@pytest.mark.parametrize("network", ["editor", "editor_transformer"])
def test_training_gives_the_same_gradients(network: str) -> None:
    model, inputs = make(small(load_preset("edge")), network)
    gradients = []
    for each in (model, kernels.apply(copy.deepcopy(model))):
        each(*inputs).square().mean().backward()
        parts = [parameter.grad for parameter in each.parameters() if parameter.grad is not None]
        assert len(parts) == len(list(each.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))  # together: some are nothing but rounding errors
    assert_close(gradients[1], gradients[0], tolerance=NETWORK_TOLERANCE)
