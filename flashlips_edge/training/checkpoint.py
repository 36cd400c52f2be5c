"""Checkpoints as safetensors: weights, optimiser state and step in one file, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flashlips_edge.errors import UserError
from flashlips_edge.files import atomic_path

LATER = ("copies",)  # parts of a network that earlier weights lack: new ones change nothing
ANEW = "delete it and begin anew, or name another folder"


def save_weights(path: Path, module: nn.Module) -> None:
    """The module's weights as float32 safetensors."""
    with atomic_path(path) as temporary:
        save_file({k: v.detach().float().contiguous() for k, v in module.state_dict().items()}, temporary)


def load_constants(weights: Path) -> dict[str, list[float]]:
    """What the lips encoder's numbers mean, of a folder of weights. Raises UserError where nothing says so."""
    path = weights / "lips.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        raise UserError(f"{path}: missing or damaged; run the training stage lips-encoder first") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises UserError for a file that cannot be read or is damaged."""
    try:
        return load_file(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name another folder, or run the training stage that writes it again") from None
    except SafetensorError:
        raise UserError(f"{path}: damaged; delete it and run the training stage that writes it again") from None


def load_weights(path: Path, module: nn.Module) -> None:
    """Load weights that ``save_weights`` wrote. Raises UserError where there are none, or another network's."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the training stage that writes it first")
    fill(module, read_tensors(path), path)


def fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load the tensors, which must fit; only parts that were added later may lack. Raises UserError naming one that does not."""
    later = {name: value for name, value in module.state_dict().items() if set(LATER) & set(name.split("."))}
    tensors = later | tensors
    wanted, given = ({name: value.shape for name, value in state.items()} for state in (module.state_dict(), tensors))
    wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if wrong:
        raise UserError(f"{path}: weights of another network or preset, {wrong[0]} does not fit; name another folder, or delete the file")
    module.load_state_dict(tensors)


def save_state(path: Path, step: int, seconds: float, module: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Everything that exact resumption needs; ``seconds`` were spent so far."""
    tensors: dict[str, Tensor] = {"step": torch.tensor(step), "seconds": torch.tensor(seconds, dtype=torch.float64)}
    tensors |= {f"module.{k}": v.contiguous() for k, v in module.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v).contiguous() for k, v in values.items()}
    with atomic_path(path) as temporary:
        save_file({k: v.detach().clone() for k, v in tensors.items()}, temporary)


def load_state(path: Path, module: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    """Restore what ``save_state`` wrote; gives the step to go on from and the seconds spent. UserError for another network's state, or
    what is none."""
    tensors = read_tensors(path)
    try:
        step, seconds = int(tensors["step"]), float(tensors.get("seconds", 0.0))  # states of earlier versions have no seconds
    except (KeyError, ValueError, OverflowError, RuntimeError):
        raise UserError(f"{path}: no state of a training, it has no step to go on from; {ANEW}") from None

    def part(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    fill(module, part("module."), path)
    fill(average, part("average."), path)
    state: dict[int, dict[str, Tensor]] = {}
    parameters = {str(i): p for i, p in enumerate(p for group in optimiser.param_groups for p in group["params"])}
    for key, value in part("optimiser.").items():
        index, _, name = key.partition(".")
        if index not in parameters or value.shape not in ((), parameters[index].shape):
            raise UserError(f"{path}: state of another network's training, optimiser.{key} does not fit; {ANEW}")
        if value.ndim:  # in the layout of its parameter: AdamW in one kernel goes by the order in memory
            value = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return step, seconds
