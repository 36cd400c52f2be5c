"""Audio to lips by flow_integrate."""

from __future__ import annotations

import torch
from torch import Tensor

from flashlips_edge.models.audio_to_lips import AudioToLips
from kernels.flow_integrate.kernel import flow_integrate
from kernels.flow_integrate.weights import FlowWeights, conditions_of


@torch.no_grad()
def integrate(
    model: AudioToLips,
    weights: FlowWeights,
    noise: Tensor,
    speech: Tensor,
    emotion: Tensor,
    reference_lips: Tensor,
    previous_lips: Tensor,
    programs: int | None = None,
    together: bool = True,
) -> Tensor:
    """What the model gives for these inputs: lips [B, T, 12]. ``weights`` are the model's, packed."""
    keep = torch.cat([noise.new_ones(len(noise)), noise.new_zeros(len(noise))])
    conditions = speech, emotion, reference_lips, previous_lips, keep.new_ones(len(noise))
    heard, who, references, previous, keep_previous = (torch.cat([each, each]) for each in conditions)
    before, condition = model.context(heard, who, references, previous, keep, keep_previous)
    heads = model.layers[0].attention.heads
    lips = flow_integrate(
        noise, before, conditions_of(model, condition), weights, heads, model.steps, model.step.guidance, model.solver, programs, together
    )
    return model.absolute(lips, reference_lips)
