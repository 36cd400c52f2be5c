"""python -m kernels.aot.on_gpu: proves on this machine's GPU that compiled kernels, through the launcher, do what Triton's own launches do.

Every launch of every operation at a preset's shapes is carried out twice on the same memory, by Triton and from a cubin, and must leave
the same bytes.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from triton.runtime.jit import KernelInterface

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.engines.cubin import CubinKernels
from flashlips_edge.errors import UserError
from flashlips_edge.models.presets import load_preset
from kernels.aot.compile import compile_kernel
from kernels.aot.folder import write
from kernels.bench.cases import layer_cases
from kernels.bench.functions import function_cases
from kernels.chips import CHIPS, Chip
from kernels.launches import Launch, take_launch
from kernels.specialisation import Specialisation


class DifferentError(Exception):
    """A cubin did something else than Triton."""


def main() -> None:
    parser = Parser(prog="python -m kernels.aot.on_gpu", description="Compare compiled kernels with Triton's launches.")
    parser.add_argument("--preset", default="nano", help="the network sizes, nano unless named")
    arguments = parser.parse_args()
    preset = load_preset(arguments.preset)
    chip = _find_gpu()
    compared = 0
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for case in chain(*(cases(preset, 1, "cuda", torch.float16) for cases in (layer_cases, function_cases))):

            def take(function: Any, grid: Any, name: str = f"{case.operation}, {case.shape}") -> Any:
                def launch(*values: Any, **options: Any) -> None:
                    nonlocal compared
                    compare(take_launch(function, grid, values, options), options, values, chip, Path(folder) / str(compared), name)
                    compared += 1

                return launch

            with mock.patch.object(KernelInterface, "__getitem__", take):
                case.fused()
    print(f"{torch.cuda.get_device_name()}, preset {arguments.preset}: {compared} launches from cubins leave the bytes that Triton's leave")


def compare(launch: Launch, options: dict[str, Any], values: tuple[Any, ...], chip: Chip, folder: Path, name: str) -> None:
    """Carry out `launch` both ways. Raises DifferentError when they leave different bytes."""
    tensors = launch.tensors
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    launch.function.run(*values, grid=launch.grid, warmup=False, **options)
    after = {name: tensor.clone() for name, tensor in tensors.items()}
    for key, tensor in tensors.items():
        tensor.copy_(before[key])
    specialisation = as_triton_does(launch)
    write(folder, [compile_kernel(specialisation, chip)], chip, "on_gpu", [1])
    kernels = CubinKernels(folder)
    arguments = {key: launch.arguments[key] for key in specialisation.types}
    kernels.launch(specialisation.name, arguments, torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    for key, tensor in tensors.items():
        if not torch.equal(_bytes(tensor), _bytes(after[key])):
            raise DifferentError(f"{name}: {specialisation.name} leaves other bytes in {key} than Triton's launch")
    kernels.close()


def as_triton_does(launch: Launch) -> Specialisation:
    """What Triton itself compiles for a launch: numbers stay arguments but for 1, and those divisible by 16 are known to be."""
    free = {}
    for parameter in launch.function.params:
        value = launch.arguments[parameter.name]
        if not parameter.is_constexpr and (isinstance(value, float) or (type(value) is int and value != 1)):
            free[parameter.name] = "fp32" if isinstance(value, float) else "i32" if abs(value) < 2**31 else "i64"
    made = launch.specialise("on_gpu", launch.function.fn.__name__, flops=0, numbers=free)
    numbers = tuple(name for name, kind in free.items() if kind != "fp32" and launch.arguments[name] % 16 == 0)
    pointers = tuple(name for name, tensor in launch.tensors.items() if tensor.data_ptr() % 16 == 0)
    return replace(made, aligned=pointers + numbers)


def _find_gpu() -> Chip:
    if not torch.cuda.is_available():
        raise UserError("there is no GPU here to launch kernels on; on a machine with one, run python -m kernels.aot.on_gpu")
    major, minor = torch.cuda.get_device_capability()
    for chip in CHIPS.values():
        if chip.capability == 10 * major + minor:
            return chip
    known = ", ".join(f"sm_{chip.capability}" for chip in CHIPS.values())
    raise UserError(f"this GPU is sm_{major}{minor}, and kernels are compiled for {known}")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


if __name__ == "__main__":
    with one_sentence("kernels.aot.on_gpu"):
        main()
