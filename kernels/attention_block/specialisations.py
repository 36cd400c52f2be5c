"""What is compiled ahead of time of attention_block: each shape of the editor's maps and of the transformers' tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

from flashlips_edge.models.layers import Attention, AttentionBlock
from kernels.attention_block.module import FusedAttention, FusedAttentionBlock
from kernels.launches import record
from kernels.shapes import LayerCall, layer_calls
from kernels.specialisation import Specialisation


def specialisations(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """The kernels of every attention that a pass over ``batch`` frames, or over a window of speech, runs; the same on every chip."""
    blocks = layer_calls(preset, batch, AttentionBlock)
    inside = {id(call.layer.attention) for call in blocks}  # these run as part of their block
    calls: list[tuple[Any, LayerCall]] = [(FusedAttentionBlock, call) for call in blocks]
    calls += [(FusedAttention, call) for call in layer_calls(preset, batch, Attention) if id(call.layer) not in inside]
    found = []
    for fused, call in calls:
        x = call.arguments[0]
        width = x.shape[1] if x.ndim == 4 else x.shape[2]
        positions = x.numel() // width  # of the whole batch
        flops = {
            "normalise": 6 * x.numel(),
            "qkv": 6 * width * x.numel(),
            "attend": 4 * positions // x.shape[0] * x.numel(),
            "project": 2 * width * x.numel(),
        }
        parts = list(flops) if x.ndim == 4 else list(flops)[1:]
        for part, launch in zip(parts, record(partial(fused.forward, call.layer, x))):
            found.append(launch.specialise("attention_block", f"attention_block_{part}_{'x'.join(map(str, x.shape))}", flops[part]))
    return found
