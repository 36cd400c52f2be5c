"""Audio to lips' weights as the kernel reads them: one tensor for all layers of a kind."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from flashlips_edge.models.audio_to_lips import AudioToLips


class FlowWeights(NamedTuple):
    """N layers of width W and MLP width M, lips of D dimensions; all of one type."""

    modulation_weight: Tensor  # [N * 6 * W, W]: shift, scale and gate of attention, then of the MLP
    modulation_bias: Tensor  # [N * 6 * W]
    qkv_weight: Tensor  # [N, 3 * W, W]
    qkv_bias: Tensor  # [N, 3 * W]
    project_weight: Tensor  # [N, W, W]
    project_bias: Tensor  # [N, W]
    widen_weight: Tensor  # [N, M, W]
    widen_bias: Tensor  # [N, M]
    narrow_weight: Tensor  # [N, W, M]
    narrow_bias: Tensor  # [N, W]
    norm_weight: Tensor  # [W]
    norm_bias: Tensor  # [W]
    leave_weight: Tensor  # [D, W]
    leave_bias: Tensor  # [D]
    enter_weight: Tensor  # [D, W], transposed
    enter_bias: Tensor  # [W]
    position: Tensor  # [P + T, W]


def pack(model: AudioToLips) -> FlowWeights:
    """A copy of the model's weights: make it again when they change."""

    def stack(name: str) -> Tensor:
        return torch.stack([layer.get_parameter(name).detach() for layer in model.layers])

    linears = "attention.qkv", "attention.project", "mlp.0", "mlp.2"
    tensors = [
        stack("modulation.weight").flatten(0, 1),
        stack("modulation.bias").flatten(),
        *(stack(f"{name}.{kind}") for name in linears for kind in ("weight", "bias")),
        *(model.norm.weight, model.norm.bias, model.leave.weight, model.leave.bias),
        model.enter.weight.T.contiguous(),
        model.enter.bias,
        model.position[0],
    ]
    return FlowWeights(*(tensor.detach() for tensor in tensors))


def times(steps: int, solver: str) -> list[float]:
    """The flow times at which the velocity is evaluated: one a step, or with the midpoint rule two."""
    inner = (0.0, 0.5) if solver == "midpoint" else (0.0,)
    return [(step + part) / steps for step in range(steps) for part in inner]


def update(evaluation: int, steps: int, solver: str) -> tuple[float, bool]:
    """How far the velocity of an evaluation carries, and whether from there the integration goes on (else it only looks ahead)."""
    if solver == "midpoint" and evaluation % 2 == 0:
        return 0.5 / steps, False
    return 1 / steps, True


def conditions_of(model: AudioToLips, condition: Tensor) -> Tensor:
    """The conditions at every evaluation: condition [2B, L, W] -> silu(condition + clock), [E, 2B, L, W]."""
    moments = torch.tensor(times(model.steps, model.solver), device=condition.device, dtype=condition.dtype)
    angles = moments[:, None] * model.frequencies  # [E, W / 2]
    clocks = model.condition_time(torch.cat([angles.sin(), angles.cos()], 1))
    return F.silu(condition + clocks[:, None, None])
