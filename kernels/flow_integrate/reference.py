"""flow_integrate in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.flow_integrate.weights import FlowWeights, update


def flow_integrate(
    noise: Tensor, before: Tensor, conditions: Tensor, weights: FlowWeights, heads: int, steps: int, guidance: float, solver: str = "euler"
) -> Tensor:
    """The flow from noise [B, T, D] at time 0 to lips [B, T, D] at time 1, in relative units (FlashLips, section 3.4).

    before [2B, P, W]: tokens of the steps before, of the guided half and of the unguided; conditions [E, 2B, P + T, W] at each of the E
    evaluations, after their SiLU.
    """
    earlier, width, layers = before.shape[1], before.shape[2], len(weights.qkv_weight)
    z, looked = noise, noise
    for evaluation, condition in enumerate(conditions):
        modulation = F.linear(condition, weights.modulation_weight, weights.modulation_bias).unflatten(-1, (layers, 6, width))
        entered = looked @ weights.enter_weight + weights.enter_bias
        x = torch.cat([before, torch.cat([entered, entered])], 1) + weights.position
        for layer in range(layers):
            shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation[:, :, layer].unbind(2)
            hidden = F.layer_norm(x, (width,)) * (1 + scale_a) + shift_a
            qkv = F.linear(hidden, weights.qkv_weight[layer], weights.qkv_bias[layer]).unflatten(-1, (3, heads, -1))
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + gate_a * F.linear(mixed, weights.project_weight[layer], weights.project_bias[layer])
            hidden = F.layer_norm(x, (width,)) * (1 + scale_m) + shift_m
            hidden = F.gelu(F.linear(hidden, weights.widen_weight[layer], weights.widen_bias[layer]))
            x = x + gate_m * F.linear(hidden, weights.narrow_weight[layer], weights.narrow_bias[layer])
        normed = F.layer_norm(x[:, earlier:], (width,), weights.norm_weight, weights.norm_bias)
        heard, unheard = F.linear(normed, weights.leave_weight, weights.leave_bias).chunk(2)
        size, moves = update(evaluation, steps, solver)
        looked = z + size * (unheard + guidance * (heard - unheard))
        z = looked if moves else z
    return z
