"""Audio to lips with flow_step between the evaluations of its velocity field."""

from __future__ import annotations

import torch
from torch import Tensor

from flashlips_edge.models.audio_to_lips import AudioToLips
from kernels.flow_step.kernel import flow_step


class FusedAudioToLips(AudioToLips):
    """As the plain network, with each step's update and embedding in one launch. The integration is for inference: where gradients are
    recorded the plain one runs."""

    def forward(self, noise: Tensor, speech: Tensor, emotion: Tensor, reference_lips: Tensor, previous_lips: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(noise, speech, emotion, reference_lips, previous_lips)
        keep = torch.cat([noise.new_ones(len(noise)), noise.new_zeros(len(noise))])
        conditions = speech, emotion, reference_lips, previous_lips, keep.new_ones(len(noise))
        heard, who, references, previous, keep_previous = (torch.cat([each, each]) for each in conditions)
        before, condition = self.context(heard, who, references, previous, keep, keep_previous)

        def advance(z: Tensor, velocities: Tensor, size: float) -> tuple[Tensor, Tensor]:
            return flow_step(z, velocities, size, self.step.guidance, self.enter.weight, self.enter.bias, before, self.position)

        def velocities(tokens: Tensor, time: float) -> Tensor:
            angles = torch.full_like(keep, time)[:, None] * self.frequencies
            clock = self.condition_time(torch.cat([angles.sin(), angles.cos()], 1))
            for layer in self.layers:
                tokens = layer(tokens, condition + clock[:, None])
            return self.leave(self.norm(tokens[:, before.shape[1] :]))

        z, tokens = advance(noise, noise.new_zeros(2 * len(noise), *noise.shape[1:]), 0.0)
        size = 1 / self.steps
        for index in range(self.steps):
            here = velocities(tokens, index * size)
            if self.solver == "midpoint":
                _, tokens = advance(z, here, size / 2)
                here = velocities(tokens, (index + 0.5) * size)
            z, tokens = advance(z, here, size)
        return self.absolute(z, reference_lips)


FUSED = {AudioToLips: FusedAudioToLips}
