"""The training loop that every stage shares: AdamW, warm-up and cosine, bf16, clipping, weight averaging, exact resume."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from flashlips_edge.training.checkpoint import load_state, save_state, save_weights

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: the learning rate rises over ``warm_up`` steps and falls to ``final_rate`` on a cosine."""

    steps: int
    rate: float
    final_rate: float = 1e-5
    warm_up: int = 100
    average_decay: float = 0.998
    weight_decay: float = 1e-4
    clip: float = 1.0
    save_every_s: float = 120.0

    def at(self, step: int) -> float:
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        t = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.final_rate + (self.rate - self.final_rate) * (1 + math.cos(math.pi * t)) / 2


def train(
    name: str,
    module: nn.Module,
    loss: Callable[[nn.Module, np.random.Generator], Losses],
    schedule: Schedule,
    folder: Path,
    seed: int = 0,
    check: Callable[[nn.Module], dict[str, float]] | None = None,
) -> nn.Module:
    """Train ``module`` and return its running average, also written to ``folder/name.safetensors``.

    ``loss(module, generator)`` draws a batch with a generator that depends on the step alone and gives the terms of the
    loss; their sum is minimised. A run that was killed goes on from ``folder/name.state.safetensors`` and ends with the same
    weights. ``check`` is evaluated on the average at every save. The learning curve is ``folder/name.jsonl``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(module).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad], lr=schedule.rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.98)
    )
    state, curve = folder / f"{name}.state.safetensors", folder / f"{name}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    start = load_state(state, module, average, optimiser) if state.exists() else 0
    saved_at, sums = time.monotonic(), dict[str, float]()
    bar = tqdm(range(start, schedule.steps), initial=start, total=schedule.steps, desc=name, unit="step", mininterval=10)
    for step in bar:
        generator = np.random.default_rng([seed, step])
        torch.manual_seed(seed * 1_000_003 + step)
        module.train()
        with torch.autocast(device.type, torch.bfloat16):
            terms = loss(module, generator)
        total = torch.stack([t.float() for t in terms.values()]).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
        for group in optimiser.param_groups:
            group["lr"] = schedule.at(step)
        optimiser.step()
        decay = min(schedule.average_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), module.parameters()):
                slow.lerp_(fast, 1 - decay)
            for slow, fast in zip(average.buffers(), module.buffers()):
                slow.copy_(fast)
        for key, value in terms.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        if (step + 1) % 100 == 0:
            means = {key: round(value / 100, 5) for key, value in sums.items()}
            bar.set_postfix(means, refresh=False)
            _append(curve, {"step": step + 1, "rate": schedule.at(step), **means})
            sums.clear()
        last = step + 1 == schedule.steps
        if last or time.monotonic() - saved_at > schedule.save_every_s:
            save_state(state, step + 1, module, average, optimiser)
            save_weights(folder / f"{name}.safetensors", average)
            if check is not None:
                average.eval()
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                    result = check(average)
                _append(curve, {"step": step + 1, **{k: round(v, 4) for k, v in result.items()}})
                tqdm.write(f"{name} {step + 1}: " + ", ".join(f"{k} {v:.3f}" for k, v in result.items()))
            saved_at = time.monotonic()
    if start >= schedule.steps:
        save_weights(folder / f"{name}.safetensors", average)
    return average.eval()


def _append(path: Path, row: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
