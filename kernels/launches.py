"""What a host function launches, found out by calling it: nothing runs, so tensors may lie on the meta device, at any size.

launches = record(lambda: group_norm_silu(torch.empty(1, 320, 64, 64, dtype=torch.float16, device="meta"), ...))
[launch.specialise("group_norm_silu", f"group_norm_silu_{i}", flops, bytes) for i, launch in enumerate(launches)]
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import KernelInterface

from kernels import checks
from kernels.specialisation import Specialisation

TYPES = {
    torch.bool: "*i1",
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}


@dataclass(frozen=True)
class Launch:
    """One `kernel[grid](...)`: arguments by name, and Triton's options."""

    function: Any
    arguments: dict[str, Any]
    grid: tuple[int, int, int]
    num_warps: int
    num_stages: int
    cooperative: bool

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}

    @property
    def bytes(self) -> int:
        """What the tensors hold, each read or written once; two views of the same memory count once."""
        views = {(x.untyped_storage()._cdata, x.storage_offset(), x.shape): x for x in self.tensors.values()}
        return sum(x.numel() * x.element_size() for x in views.values())

    def specialise(
        self, operation: str, name: str, flops: int, traffic: int | None = None, numbers: dict[str, str] | None = None
    ) -> Specialisation:
        """This launch for ahead-of-time compilation: pointers stay arguments, and numbers, which belong to the shape, are compiled in.

        `numbers` are those that stay arguments, with Triton's type of each ("i32", "fp32"). `traffic` in bytes is what the tensors
        hold unless given.
        """
        free = numbers or {}
        return Specialisation(
            operation,
            name,
            self.function,
            types={name: TYPES[tensor.dtype] for name, tensor in self.tensors.items()} | free,
            constants={name: value for name, value in self.arguments.items() if not isinstance(value, Tensor) and name not in free},
            aligned=tuple(name for name, x in self.tensors.items() if x.storage_offset() * x.element_size() % 16 == 0),
            grid=self.grid,
            num_warps=self.num_warps,
            num_stages=self.num_stages,
            flops=flops,
            bytes=self.bytes if traffic is None else traffic,
            cooperative=self.cooperative,
        )


def record(call: Callable[[], Any]) -> list[Launch]:
    """The launches of `call`, in order; none of them is carried out."""
    launches: list[Launch] = []

    def take(function: Any, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **options: launches.append(take_launch(function, grid, arguments, options))

    # a host function refuses tensors that no kernel can read, and here none will
    unchecked = mock.patch.object(checks, "INTERPRETED", tl.constexpr(True))
    with mock.patch.object(KernelInterface, "__getitem__", take), unchecked, torch.no_grad():
        call()
    return launches


def take_launch(function: Any, grid: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Launch:
    """`function[grid](*arguments, **options)`, not carried out."""
    signature = inspect.signature(function.fn)
    bound = signature.bind(*arguments, **{name: value for name, value in options.items() if name in signature.parameters})
    bound.apply_defaults()
    sizes = grid(bound.arguments) if callable(grid) else grid
    x, y, z = (int(n) for n in (*sizes, 1, 1)[:3])
    warps, stages = options.get("num_warps", 4), options.get("num_stages", 3)
    return Launch(function, dict(bound.arguments), (x, y, z), warps, stages, options.get("launch_cooperative_grid", False))
