"""Audio to lips: a transformer whose velocity field carries noise to lips vectors (FlashLips, section 3.4).

Flow matching in lips space: z_t = (1 - t) eps + t z, u = z - eps, loss |v(z_t, t, c) - u|^2, t ~ U(0, 1). Not stated
in the paper and taken from FLOAT, which it cites: windows of 50 steps, 10 preceding ones as context, frame-wise AdaLN, condition
dropout 0.1, preceding dropout 0.5, Euler steps, guidance on the speech. The midpoint rule is the other solver.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flashlips_edge.errors import UserError
from flashlips_edge.models.layers import LIPS, AdaLN, Attention, FlowStep

SOLVERS = ("euler", "midpoint")


class AdaLayer(nn.Module):
    """Pre-norm transformer layer whose norms are modulated and whose branches are gated step by step (AdaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = AdaLN(width), AdaLN(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x, condition [B, L, width] -> [B, L, width]."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(F.silu(condition)).chunk(6, -1)
        x, normed = self.before_attention(x, scale_a, shift_a)
        x, normed = self.before_mlp(x, scale_m, shift_m, self.attention(normed), gate_a)
        return x + gate_m * self.mlp(normed)


class AudioToLips(nn.Module):
    """The velocity field and its integration over a window of T steps.

    ``context``: speech [B, T, D], emotion [B, E], reference_lips [B, K, 12], previous_lips [B, P, 12], keep [B] (0 drops the speech
    condition), keep_previous [B] -> what ``field`` is told besides z [B, T, 12] and time [B], to give the velocity [B, T, 12].
    ``forward``: the whole integration from noise [B, T, 12] to lips [B, T, 12] in ``steps`` steps of ``solver``, euler or midpoint (two
    evaluations a step), with guidance on the speech.
    """

    def __init__(
        self,
        speech_width: int,
        width: int,
        layers: int,
        heads: int,
        window: int,
        previous: int,
        references: int,
        emotions: int,
        steps: int,
        guidance: float,
        solver: str = "euler",
    ) -> None:
        super().__init__()
        if solver not in SOLVERS:
            raise UserError(f"audio_to_lips: solver {solver!r} is not one of {', '.join(SOLVERS)}")
        self.steps, self.solver = steps, solver
        self.step = FlowStep(guidance)
        self.register_buffer("mean", torch.zeros(LIPS))
        self.register_buffer("deviation", torch.ones(LIPS))
        self.enter = nn.Linear(LIPS, width)
        self.enter_previous = nn.Linear(LIPS, width)
        self.condition_speech = nn.Linear(speech_width, width)
        self.no_speech = nn.Parameter(torch.zeros(width))
        self.no_previous = nn.Parameter(torch.zeros(width))
        self.condition_references = nn.Sequential(nn.Linear(references * LIPS, width), nn.SiLU(), nn.Linear(width, width))
        self.condition_emotion = nn.Linear(emotions, width, bias=False)
        self.condition_time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.position = nn.Parameter(torch.randn(1, previous + window, width) * 0.1)
        self.layers = nn.ModuleList(AdaLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, LIPS)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        half = width // 2
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * torch.arange(half) / half) * 1000, persistent=False)

    def relative(self, lips: Tensor, reference_lips: Tensor) -> Tensor:
        """Lips vectors about the mean of the face's references, in units of the training set's deviation: what is one
        face's own offset in lips space need not be learned, and an unseen face keeps its own."""
        return (lips - reference_lips.mean(1, keepdim=True) - self.mean) / self.deviation

    def absolute(self, z: Tensor, reference_lips: Tensor) -> Tensor:
        """The inverse of ``relative``."""
        return z * self.deviation + self.mean + reference_lips.mean(1, keepdim=True)

    def context(
        self, speech: Tensor, emotion: Tensor, reference_lips: Tensor, previous_lips: Tensor, keep: Tensor, keep_previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What does not change with flow time: previous tokens [B, P, width], conditions [B, P+T, width]."""
        b, p = previous_lips.shape[:2]
        previous_lips = self.relative(previous_lips, reference_lips)
        reference_lips = self.relative(reference_lips, reference_lips)
        heard = self.condition_speech(speech) * keep[:, None, None] + self.no_speech * (1 - keep[:, None, None])
        who = self.condition_references(reference_lips.flatten(1)) + self.condition_emotion(emotion)
        before = self.enter_previous(previous_lips) * keep_previous[:, None, None] + self.no_previous * (1 - keep_previous[:, None, None])
        silent = self.no_speech.expand(b, p, -1)
        return before, torch.cat([silent, heard], 1) + who[:, None]

    def field(self, z: Tensor, time: Tensor, before: Tensor, condition: Tensor) -> Tensor:
        """Velocity [B, T, 12] at normalised lips z [B, T, 12] and flow time [B]."""
        angles = time[:, None] * self.frequencies  # [B, width/2]
        clock = self.condition_time(torch.cat([angles.sin(), angles.cos()], 1))
        x = torch.cat([before, self.enter(z)], 1) + self.position
        condition = condition + clock[:, None]
        for layer in self.layers:
            x = layer(x, condition)
        return self.leave(self.norm(x[:, before.shape[1] :]))

    def forward(self, noise: Tensor, speech: Tensor, emotion: Tensor, reference_lips: Tensor, previous_lips: Tensor) -> Tensor:
        """Euler: z <- z + h v(z, t). Midpoint: z <- z + h v(z + h/2 v(z, t), t + h/2). h = 1 / steps, v = v_no + guidance
        (v_speech - v_no); both velocities in one batch of 2B."""
        b = noise.shape[0]

        def twice(x: Tensor) -> Tensor:
            return torch.cat([x, x], 0)

        keep = torch.cat([noise.new_ones(b), noise.new_zeros(b)], 0)
        before, condition = self.context(
            twice(speech), twice(emotion), twice(reference_lips), twice(previous_lips), keep, torch.ones_like(keep)
        )

        def velocities(z: Tensor, time: float) -> Tensor:
            return self.field(twice(z), torch.full_like(keep, time), before, condition)

        z, size = noise, 1 / self.steps
        for index in range(self.steps):
            here = velocities(z, index * size)
            if self.solver == "midpoint":
                here = velocities(self.step(z, here, size / 2), (index + 0.5) * size)
            z = self.step(z, here, size)
        return self.absolute(z, reference_lips)
