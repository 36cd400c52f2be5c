"""The shapes that a preset's networks need, found by running the networks on the meta device, where nothing is computed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flashlips_edge.models.networks import examples, graphs, networks


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

    for network, inputs in meta_networks(preset, batch).values():
        hooks = [layer.register_forward_pre_hook(take, with_kwargs=True) for layer in network.modules() if type(layer) is kind]
        with torch.no_grad():
            network(*inputs)
        for hook in hooks:
            hook.remove()
    return list(found.values())


def meta_networks(preset: dict[str, Any], batch: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Every graph of the preset by name, with inputs for `batch` pictures or for one window of speech: fp16, on the meta device."""
    with torch.device("meta"):
        models = graphs(networks(preset))
    pictures, speech = examples(preset, batch), examples(preset, 1)
    inputs = {**pictures, "editor_transformer": pictures["editor"], **{name: speech[name] for name in ("speech_encoder", "audio_to_lips")}}
    found = {}
    for name, model in models.items():
        found[name] = (model.eval().half(), tuple(x.to("meta", torch.float16) for x in inputs[name].values()))
    return found
