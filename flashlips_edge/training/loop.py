"""The training loop that every stage shares, on Lightning Fabric: CPU, one GPU, or several with torchrun.

    torchrun --nproc-per-node 8 -m flashlips_edge.training --preset paper --stages editor,refinement

AdamW, warm-up and cosine, bf16 where the processor has it, gradient clipping, weight averaging, exact resume, batches drawn ahead by
worker processes. How much of a schedule is run, all of it unless somebody says otherwise, is the pace (pace.py).
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from flashlips_edge.errors import UserError
from flashlips_edge.files import make_folder
from flashlips_edge.training import precision
from flashlips_edge.training.checkpoint import load_state, save_state, save_weights
from flashlips_edge.training.curves import Curve
from flashlips_edge.training.pace import pace
from flashlips_edge.training.workers import end_with_parent

Losses = dict[str, Tensor]
Draw = Callable[[np.random.Generator], Any]
Loss = Callable[[nn.Module, Any], Losses]
ROW_STEPS = 100  # steps that one row of the curve is the mean of
AHEAD = 3  # batches that each worker keeps ready
ENDLESS = 10**9  # steps: the minutes end it


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

    def at(self, step: int, progress: float | None = None) -> float:
        """The rate of a step; ``progress``, from 0 to 1, is how far it is where no number of steps says so."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        t = (step - self.warm_up) / max(1, self.steps - self.warm_up) if progress is None else progress
        return self.final_rate + (self.rate - self.final_rate) * (1 + math.cos(math.pi * t)) / 2


class Batches(Dataset):
    """Batch ``step`` is ``draw`` of a generator that depends on seed, step and rank alone, whoever draws it and whenever."""

    def __init__(self, draw: Draw, seed: int, rank: int = 0) -> None:
        self.draw, self.seed, self.rank = draw, seed, rank

    def __getitem__(self, step: int) -> Any:
        return self.draw(np.random.default_rng([self.seed, step, self.rank]))


class _Step(nn.Module):
    """Module and loss as one forward pass: what autocast and DistributedDataParallel wrap."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, batch: Any) -> Losses:
        return {name: term.float() for name, term in self.loss(self.module, batch).items()}


def on(module: nn.Module, batch: Any) -> Any:
    """``batch``, a tree of tensors, on the module's device."""
    return move_data_to_device(batch, next(module.parameters()).device)


def fabric_of_environment() -> Fabric:
    """Fabric on the device that is there, in bf16 where it has that; on all of torchrun's processes when torchrun started this one."""
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    # terms and branches differ from batch to batch, so that not every parameter has a gradient in every process
    strategy: Any = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if world > 1 else "auto"
    numbers: Any = "bf16-mixed" if precision.has_bfloat16("cuda" if torch.cuda.is_available() else "cpu") else "32-true"
    fabric = Fabric(accelerator="auto", strategy=strategy, devices=local, num_nodes=world // local, precision=numbers)
    fabric.launch()
    torch.backends.cudnn.benchmark = True  # every batch has the same shapes
    return fabric


def worker_count(fabric: Fabric) -> int:
    """Processes that draw for this one: one beside a CPU's training, else this GPU's share of the cores less one."""
    if fabric.device.type == "cpu":
        return 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // local - 1)


def train(
    name: str,
    module: nn.Module,
    draw: Draw,
    loss: Loss,
    schedule: Schedule,
    folder: Path,
    seed: int = 0,
    check: Callable[[nn.Module], dict[str, float]] | None = None,
    workers: int | None = None,
) -> nn.Module:
    """Train ``module`` and return its running average, also written to ``folder/name.safetensors``.

    ``draw(generator)`` gives a batch, any tree of CPU tensors, from a numpy generator of the step; worker processes call it
    ahead of time. ``loss(module, batch)``, the batch on the module's device, gives the terms whose sum is minimised; torch's
    own random numbers are seeded by the step. A loss that is an nn.Module is moved to the device with its frozen networks.
    ``check(average)`` is evaluated at every save; its batches need ``on(module, batch)``.

    A run that was killed goes on from ``folder/name.state.safetensors`` and ends with the same weights, but for one whose pace has
    minutes: those already trained count, and the time that was left is trained. The curve is
    ``folder/name.jsonl`` and ``.png``, and under ``folder/tensorboard``; in a run of several processes the first one's.

    Raises:
        UserError: the loss is no longer finite.
    """
    fabric, minutes = fabric_of_environment(), pace().minutes
    first = fabric.is_global_zero
    schedule = replace(schedule, steps=ENDLESS if minutes is not None else pace().of(schedule.steps))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [p for p in module.parameters() if p.requires_grad]
    plain = torch.optim.AdamW(trained, lr=schedule.rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.98), fused=True)
    average = copy.deepcopy(module).requires_grad_(False).to(fabric.device)
    step_module, optimiser = fabric.setup(_Step(module, loss), plain)
    state = folder / f"{name}.state.safetensors"
    make_folder(folder)
    start, spent = load_state(state, module, average, plain) if state.exists() else (0, 0.0)
    curve = Curve(folder, name, start) if first else None

    def save(done: int, seconds: float) -> None:
        save_state(state, done, seconds, module, average, plain)
        save_weights(folder / f"{name}.safetensors", average)
        if check is not None:
            average.eval()
            with torch.no_grad(), fabric.autocast():
                result = check(average)
            tqdm.write(f"{name} {done}: " + ", ".join(f"{k} {v:.3f}" for k, v in result.items()))
            curve.append(done, result)  # type: ignore[union-attr]
        curve.draw()  # type: ignore[union-attr]

    count = worker_count(fabric) if workers is None else workers
    loader = DataLoader(
        Batches(draw, seed, fabric.global_rank),
        batch_size=None,
        sampler=range(start, start if minutes is not None and spent >= 60 * minutes else schedule.steps),
        num_workers=count,
        prefetch_factor=AHEAD if count else None,
        worker_init_fn=end_with_parent,
        pin_memory=fabric.device.type == "cuda",
    )
    batches = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
    rows: list[Losses] = []
    saved_at = time.monotonic()
    begun = saved_at - spent
    total = None if minutes is not None else schedule.steps
    bar = tqdm(batches, initial=start, total=total, desc=name, unit="step", mininterval=10, disable=not first)
    for step, batch in enumerate(bar, start):
        # all processes go by the first one's clock
        progress = fabric.broadcast((time.monotonic() - begun) / (60 * minutes)) if minutes is not None else None
        torch.manual_seed(int(np.random.SeedSequence([seed, step, fabric.global_rank]).generate_state(1)[0]))
        module.train()
        for group in optimiser.param_groups:
            group["lr"] = schedule.at(step, progress)
        terms = step_module(batch)
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(torch.stack(list(terms.values())).sum())
        fabric.clip_gradients(step_module, optimiser, max_norm=schedule.clip, error_if_nonfinite=False)
        optimiser.step()
        follow(average, module, min(schedule.average_decay, (1 + step) / (10 + step)))
        rows.append({key: value.detach() for key, value in terms.items()})
        done = step + 1
        last = done == schedule.steps or (progress is not None and progress >= 1)
        due = first and (last or time.monotonic() - saved_at > schedule.save_every_s)
        if done % ROW_STEPS == 0 or due:
            means = mean_terms(rows)
            if not all(map(math.isfinite, means.values())):
                raise UserError(
                    f"{name}: the loss is not finite at step {done}; go on from the last save with a smaller rate than {schedule.rate}"
                )
        if done % ROW_STEPS == 0:
            if curve is not None:
                curve.append(done, {"rate": schedule.at(step, progress), **means})
            bar.set_postfix({key: round(value, 5) for key, value in means.items()}, refresh=False)
            rows.clear()
        if due:
            save(done, time.monotonic() - begun)
            saved_at = time.monotonic()
        if last:
            break
    if first and len(loader) == 0:
        save_weights(folder / f"{name}.safetensors", average)
    fabric.barrier()  # the next stage of each process reads what the first one wrote
    return average.eval()


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Weights of the average: decay * average + (1 - decay) * module; buffers are copied."""
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(module.parameters()), 0)  # one kernel, not one for each weight
    for slow, fast in zip(average.buffers(), module.buffers()):
        slow.copy_(fast)


def mean_terms(rows: list[Losses]) -> dict[str, float]:
    """Mean of each term over the steps that had it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(torch.stack([row[name] for row in rows if name in row]).mean()) for name in names}
