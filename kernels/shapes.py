"""The shapes that a preset's networks need, found by running the networks on the meta device, where nothing is computed."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from flashlips_edge.models.networks import examples, graphs, networks


@dataclass(frozen=True)
class LayerCall:
    """One layer, and arguments that it is called with: fp16, on the meta device. `count` is how often one pass does so."""

    layer: nn.Module
    arguments: tuple[Any, ...]
    count: int


def layer_calls(preset: dict[str, Any], batch: int, kind: type[nn.Module]) -> list[LayerCall]:
    """The different calls of layers of exactly this type in the preset's networks, in the order of a pass over `batch` frames."""
    return [call for call in _all_calls(json.dumps(preset), batch) if type(call.layer) is kind]


def meta_networks(preset: dict[str, Any], batch: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Every graph of the preset by name, with inputs for `batch` pictures or for one window of speech: fp16, on the meta device."""
    return _meta_networks(json.dumps(preset), batch)


@lru_cache(maxsize=4)
def _meta_networks(text: str, batch: int) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    preset = json.loads(text)
    with torch.device("meta"):
        models = graphs(networks(preset))
    pictures, speech = examples(preset, batch), examples(preset, 1)
    inputs = {**pictures, "editor_transformer": pictures["editor"], **{name: speech[name] for name in ("speech_encoder", "audio_to_lips")}}
    found = {}
    for name, model in models.items():
        found[name] = (model.eval().half(), tuple(x.to("meta", torch.float16) for x in inputs[name].values()))
    return found


@lru_cache(maxsize=4)
def _all_calls(text: str, batch: int) -> list[LayerCall]:
    found: dict[tuple[Any, ...], LayerCall] = {}

    def take(layer: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        bound = inspect.signature(layer.forward).bind(*arguments, **options)
        bound.apply_defaults()
        sizes = [(name, value) for name, value in vars(layer).items() if isinstance(value, (int, float))]
        shapes = [(tuple(x.shape), x.stride()) if isinstance(x, Tensor) else x for x in bound.args]
        key = (type(layer), repr(layer), repr(sizes), repr(shapes))
        found[key] = LayerCall(layer, bound.args, found[key].count + 1 if key in found else 1)

    for network, inputs in _meta_networks(text, batch).values():
        hooks = [layer.register_forward_pre_hook(take, with_kwargs=True) for layer in network.modules()]
        with torch.no_grad():
            network(*inputs)
        for hook in hooks:
            hook.remove()
    return list(found.values())
