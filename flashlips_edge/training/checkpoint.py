"""Checkpoints as safetensors: weights, optimiser state and step in one file, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flashlips_edge.files import atomic_path


def save_weights(path: Path, module: nn.Module) -> None:
    """The module's weights as float32 safetensors."""
    with atomic_path(path) as temporary:
        save_file({k: v.detach().float().contiguous() for k, v in module.state_dict().items()}, temporary)


def load_weights(path: Path, module: nn.Module) -> None:
    """Load weights that ``save_weights`` wrote; every name must match."""
    module.load_state_dict(load_file(path))


def save_state(path: Path, step: int, module: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Everything that exact resumption needs."""
    tensors: dict[str, Tensor] = {"step": torch.tensor(step)}
    tensors |= {f"module.{k}": v.contiguous() for k, v in module.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v).contiguous() for k, v in values.items()}
    with atomic_path(path) as temporary:
        save_file({k: v.detach().clone() for k, v in tensors.items()}, temporary)


def load_state(path: Path, module: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Restore what ``save_state`` wrote; returns the step to go on from."""
    tensors = load_file(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    module.load_state_dict(part("module."))
    average.load_state_dict(part("average."))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimiser.").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(tensors["step"])
