"""A network run by torch itself, on the CPU or an NVIDIA GPU: what a developer compares the other engines with. No part of a product."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from flashlips_edge.errors import UserError


class TorchEngine:
    """One network, an `nn.Module` that takes its inputs in the order of `input_shapes` and gives one output.

    Shapes are as in the manifest's entry of a graph: a free axis is a string. `runs` and `seconds` count what it has done.
    Raises UserError without torch, and for a device that torch does not have.
    """

    def __init__(self, module: Any, input_shapes: dict[str, Any], output_shapes: dict[str, Any], device: str = "cpu") -> None:
        try:
            import torch
        except ImportError:
            raise UserError("the engine needs torch, which is missing: pip install 'flashlips-edge[build]'") from None
        if device not in ("cpu", "cuda"):
            raise UserError(f"--device {device}: an engine of torch runs on cpu or cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch finds no NVIDIA GPU here; choose cpu")
        self._torch, self._device = torch, device
        self._module = module.to(device).eval()
        self.input_shapes = {name: tuple(shape) for name, shape in input_shapes.items()}
        self.output_shapes = {name: tuple(shape) for name, shape in output_shapes.items()}
        self.runs = 0
        self.seconds = 0.0

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name, for `inputs` by name. A missing, unknown or misshapen input is a ValueError."""
        start = time.perf_counter()
        outputs = self._forward({name: self._torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()})
        result = {name: tensor.cpu().numpy() for name, tensor in outputs.items()}
        self._count(start)
        return result

    def run_on_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The same without the host: anything with `__cuda_array_interface__` in, tensors out, which have it too. Waits for torch."""
        start = time.perf_counter()
        outputs = self._forward({name: self._torch.as_tensor(value, device=self._device) for name, value in inputs.items()})
        if self._device == "cuda":
            self._torch.cuda.synchronize()
        self._count(start)
        return outputs

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if inputs.keys() != self.input_shapes.keys():
            raise ValueError(f"inputs are {sorted(inputs)}, the network takes {sorted(self.input_shapes)}")
        for name, tensor in inputs.items():
            wanted, given = self.input_shapes[name], tuple(tensor.shape)
            if len(wanted) != len(given) or any(isinstance(axis, int) and axis != size for axis, size in zip(wanted, given)):
                raise ValueError(f"input {name} has shape {given}, the network takes {wanted}")
        with self._torch.inference_mode():
            output = self._module(*(inputs[name].to(self._device) for name in self.input_shapes))
        return dict(zip(self.output_shapes, (output,)))

    def _count(self, start: float) -> None:
        self.seconds += time.perf_counter() - start
        self.runs += 1
