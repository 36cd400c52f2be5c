"""The engine made by torch-tensorrt, from the weights instead of the ONNX graphs: another kind, for a server's GPU, where that package is.

The networks compute in the target's higher precision, as their parameters have it; what comes out is an engine file like any other.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from typing import Any

import torch
from torch import Tensor, nn

from flashlips_edge.bundle import Bundle
from flashlips_edge.engines.build import Compiler
from flashlips_edge.engines.plans import Plan, Range
from flashlips_edge.errors import UserError
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.export import load_graphs

NEEDS = (2, 14)  # the first that takes names for the engine's tensors
TYPES = {"fp16": torch.float16, "fp32": torch.float32}


class AtPrecision(nn.Module):
    """A network that computes in `dtype`, between float32 and float32, as the graphs of a bundle do."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network(*(x.to(self.dtype) for x in inputs)).float()


def load() -> Any:
    """The module torch_tensorrt. UserError where it is not installed, is too old, or does not import: it needs the whole of TensorRT."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # it prints before it fails
            library = importlib.import_module("torch_tensorrt")
    except ModuleNotFoundError as error:
        raise UserError(f"--torch-tensorrt: {error.name} is missing: on the server, pip install torch-tensorrt") from None
    except Exception as error:  # it raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--torch-tensorrt: torch_tensorrt does not import ({reason}): install the TensorRT that it was made for") from None
    version = tuple(int(part) for part in library.__version__.split("+")[0].split(".")[:2])
    if version < NEEDS:
        raise UserError(f"--torch-tensorrt: torch_tensorrt is {library.__version__}, and {NEEDS[0]}.{NEEDS[1]} or later is needed")
    return library


def compiler(library: Any, bundle: Bundle, rest: str, weights: Any) -> Compiler:
    """From the weights of a bundle's preset, None for networks as initialised, at precision `rest`, to its engines."""
    torch.manual_seed(0)  # of networks as initialised, as the export has it
    networks = load_graphs(load_preset(bundle.preset), weights)

    def compile_graph(name: str, ranges: dict[str, Range], workspace_mb: int) -> Plan:
        network = AtPrecision(networks[name], TYPES[rest]).eval().cuda()
        inputs = [
            library.Input(min_shape=least, opt_shape=usual, max_shape=most, dtype=torch.float32)
            if least != most
            else library.Input(most, dtype=torch.float32)
            for least, usual, most in ranges.values()
        ]
        (output,) = bundle.manifest["graphs"][name]["outputs"]
        try:
            image = library.dynamo.convert_exported_program_to_serialized_trt_engine(
                library.dynamo.trace(network, arg_inputs=tuple(inputs)),
                arg_inputs=inputs,
                workspace_size=workspace_mb << 20,
                arg_input_binding_names=tuple(ranges),
                output_binding_names=output,
            )
        except Exception as error:  # whatever torch or TensorRT does not take, with their own words
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(f"graph {name}: torch_tensorrt {library.__version__} cannot build it: {reason}") from None
        return Plan(bytes(image), b"", f"{type(networks[name]).__name__} by torch_tensorrt {library.__version__}")

    return Compiler(f"torch_tensorrt {library.__version__}", compile_graph)
