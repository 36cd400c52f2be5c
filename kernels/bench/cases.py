"""What is compared: every kind of layer that has a fused twin at each shape of a preset, and the whole networks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.shapes import layer_calls, meta_networks

NETWORKS = ("editor", "editor_transformer", "audio_to_lips")


@dataclass(frozen=True)
class Case:
    """One operation at one shape on the same rounded numbers: plain torch, None where it has no such thing, ours, and the exact answer.

    flops, bytes: what must at least be computed, and read or written once
    step:         results are whole multiples of this, and may be one off
    captured:     a CUDA graph can hold it
    """

    operation: str
    shape: str
    plain: Callable[[], Any] | None
    fused: Callable[[], Any]
    exact: Callable[[], Any]
    flops: int
    bytes: int
    step: float = 0.0
    captured: bool = True


def layer_cases(preset: dict[str, Any], batch: int, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Each fused layer at each shape, one at a time, so that only one is in memory."""
    whole = {type(network) for network, _ in meta_networks(preset, batch).values()}
    for path in sorted(Path(kernels.__file__).parent.glob("*/module.py")):
        for kind in import_module(f"kernels.{path.parent.name}.module").FUSED:
            for call in [] if kind in whole else layer_calls(preset, batch, kind):
                inputs = tensors(call.arguments)
                others = f"+{len(inputs) - 1}" if len(inputs) > 1 else ""
                shape = f"{kind.__name__} {'x'.join(map(str, inputs[0].shape))}{others}"
                yield _case(path.parent.name, shape, call.layer, call.arguments, device, dtype)


def network_cases(preset: dict[str, Any], batch: int, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """The whole editors and the whole integration of a window of speech. A network's weights are read at every pass through it."""
    for name, (network, inputs) in meta_networks(preset, batch).items():
        if name in NETWORKS:
            passes = evaluations(preset) if name == "audio_to_lips" else 1
            yield _case(name, f"batch {inputs[0].shape[0]}", network, inputs, device, dtype, passes)


def evaluations(preset: dict[str, Any]) -> int:
    """How often an integration evaluates the velocity field."""
    return preset["audio_to_lips"]["steps"] * (2 if preset["audio_to_lips"].get("solver") == "midpoint" else 1)


def _case(operation: str, shape: str, module: nn.Module, inputs: tuple[Any, ...], device: str, dtype: torch.dtype, passes: int = 1) -> Case:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        outputs = module(*inputs)
    moved = sum(x.numel() for x in tensors((*inputs, outputs))) + passes * sum(p.numel() for p in module.parameters())
    plain = materialise(module, device, dtype)
    fused, real = kernels.apply(copy.deepcopy(plain)), randomise(inputs, device, dtype)

    def exact() -> Any:
        return copy.deepcopy(plain).double()(*(x.double() if isinstance(x, Tensor) else x for x in real))

    size = torch.finfo(dtype).bits // 8
    return Case(operation, shape, lambda: plain(*real), lambda: fused(*real), exact, counter.get_total_flops(), moved * size)


def materialise(module: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """A module of the meta device with numbers in it: weights that keep a signal's size, factors about 1."""
    real = copy.deepcopy(module).to_empty(device=device).to(dtype).eval().requires_grad_(False)
    for tensor in [*real.parameters(), *real.buffers()]:
        noise = torch.randn(tensor.shape, device=device)
        tensor.copy_(noise * (tensor.numel() / tensor.shape[0]) ** -0.5 if tensor.dim() > 1 else 1 + 0.1 * noise)
    return real


def randomise(inputs: tuple[Any, ...], device: str, dtype: torch.dtype) -> tuple[Any, ...]:
    """Normal noise in place of each tensor."""
    return tuple(torch.randn(x.shape, device=device).to(dtype) if isinstance(x, Tensor) else x for x in inputs)


def tensors(values: Any) -> list[Tensor]:
    """The tensors of a tuple, or of tuples in it."""
    if isinstance(values, tuple):
        return [tensor for value in values for tensor in tensors(value)]
    return [values] if isinstance(values, Tensor) else []
