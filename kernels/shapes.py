"""The shapes that a preset's networks need, found by running the networks on the meta device, where nothing is computed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flashlips_edge.models.audio_to_lips import AudioToLips
from flashlips_edge.models.editor import EditorUNet
from flashlips_edge.models.layers import LIPS


@dataclass(frozen=True)
class LayerCall:
    """One layer, and arguments that it is called with: fp16, on the meta device. `count` is how often one pass does so."""

    layer: nn.Module
    arguments: tuple[Tensor | None, ...]
    count: int


def layer_calls(preset: dict[str, Any], batch: int, kind: type[nn.Module]) -> list[LayerCall]:
    """The different calls of layers of exactly this type in the preset's networks, in the order of a pass over `batch` frames."""
    found: dict[tuple[Any, ...], LayerCall] = {}

    def take(layer: nn.Module, arguments: tuple[Tensor | None, ...], options: dict[str, Tensor | None]) -> None:
        bound = inspect.signature(layer.forward).bind(*arguments, **options)
        bound.apply_defaults()
        inputs = bound.args
        sizes = tuple((name, value) for name, value in vars(layer).items() if isinstance(value, (int, float)))
        key = (repr(layer), sizes, *(None if x is None else (tuple(x.shape), x.stride()) for x in inputs))
        count = found[key].count if key in found else 0
        found[key] = LayerCall(layer, inputs, count + 1)

    for network, inputs in networks(preset, batch):
        hooks = [layer.register_forward_pre_hook(take, with_kwargs=True) for layer in network.modules() if type(layer) is kind]
        with torch.no_grad():
            network(*inputs)
        for hook in hooks:
            hook.remove()
    return list(found.values())


def networks(preset: dict[str, Any], batch: int) -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    """The networks that have fused layers, and inputs for `batch` frames, or for one window of speech; fp16 on the meta device."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.float16, device="meta")

    editor, speech = preset["editor"], preset["audio_to_lips"]
    latent = (batch, editor["latent_channels"], *editor["size"])
    references = (batch, editor["references"] * editor["latent_channels"], *editor["size"])
    window, before = (1, speech["window"]), (1, speech["previous"])
    heard = (
        empty(*window, LIPS),
        empty(*window, speech["speech_width"]),
        empty(1, speech["emotions"]),
        empty(1, speech["references"], LIPS),
        empty(*before, LIPS),
    )
    with torch.device("meta"):
        return [
            (EditorUNet(**editor).half(), (empty(*latent), empty(*references), empty(batch, LIPS))),
            (AudioToLips(**speech).half(), heard),
        ]
