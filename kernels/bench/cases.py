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
from kernels.shapes import layer_calls, networks


@dataclass(frozen=True)
class Case:
    """One operation at one shape: plain torch and ours, called with `inputs`; `exact` is float64's answer on the same rounded numbers.

    flops and bytes: what must at least be computed, and read or written once.
    """

    operation: str
    shape: str
    plain: Callable[..., Any]
    fused: Callable[..., Any]
    inputs: tuple[Any, ...]
    exact: Callable[[], Any]
    flops: int
    bytes: int


def layer_cases(preset: dict[str, Any], batch: int, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """Each fused layer at each shape, one at a time, so that only one is in memory."""
    for path in sorted(Path(kernels.__file__).parent.glob("*/module.py")):
        for kind in import_module(f"kernels.{path.parent.name}.module").FUSED:
            for call in layer_calls(preset, batch, kind):
                shape = "x".join(str(n) for n in _tensors(call.arguments)[0].shape)
                modulated = "" if len(_tensors(call.arguments)) == 1 else f"+{len(_tensors(call.arguments)) - 1}"
                yield _case(path.parent.name, f"{kind.__name__} {shape}{modulated}", call.layer, call.arguments, device, dtype)


def network_cases(preset: dict[str, Any], batch: int, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """The whole editor and the whole integration of a window of speech. A network's weights are read at every pass through it."""
    for network, inputs in networks(preset, batch):
        passes = getattr(network, "steps", 1)
        yield _case(type(network).__name__, f"batch {inputs[0].shape[0]}", network, inputs, device, dtype, passes)


def _case(
    operation: str, shape: str, module: nn.Module, inputs: tuple[Any, ...], device: str, dtype: torch.dtype, passes: int = 1
) -> Case:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        outputs = module(*inputs)
    size = torch.finfo(dtype).bits // 8
    moved = sum(x.numel() for x in [*_tensors(inputs), *_tensors(outputs)]) + passes * sum(p.numel() for p in module.parameters())
    plain = _materialise(module, device, dtype)
    real = tuple(None if x is None else torch.randn(x.shape, device=device).to(dtype) for x in inputs)
    fused = kernels.apply(copy.deepcopy(plain))

    def exact() -> Any:
        return copy.deepcopy(plain).double()(*(None if x is None else x.double() for x in real))

    return Case(operation, shape, plain, fused, real, exact, counter.get_total_flops(), moved * size)


def _materialise(module: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """The module of the meta device with numbers in it: weights that keep a signal's size, factors about 1."""
    real = copy.deepcopy(module).to_empty(device=device).to(dtype).eval()
    for tensor in [*real.parameters(), *real.buffers()]:
        noise = torch.randn(tensor.shape, device=device)
        tensor.data.copy_(noise * (tensor.numel() / tensor.shape[0]) ** -0.5 if tensor.dim() > 1 else 1 + 0.1 * noise)
    return real.requires_grad_(False)


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in (values if isinstance(values, tuple) else (values,)) if isinstance(x, Tensor)]
