"""What every host function asks of its tensors; what does not hold is refused in one sentence that names it."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.precision import INTERPRETED

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def check_device(operation: str, name: str, tensor: Tensor) -> None:
    """A kernel runs on a GPU, or on the CPU under the interpreter."""
    if not (tensor.is_cuda or INTERPRETED.value):
        raise ValueError(f"{operation}: {name} lies on {tensor.device}, wanted a CUDA device, or TRITON_INTERPRET=1 in the environment")


def check_float(operation: str, name: str, tensor: Tensor) -> None:
    """float32, float16 or bfloat16, where a kernel can run."""
    check_device(operation, name, tensor)
    if tensor.dtype not in FLOATS:
        raise ValueError(f"{operation}: {name} is {tensor.dtype}, wanted float32, float16 or bfloat16")


def check_like(operation: str, name: str, tensor: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """The shape, and the device of ``like``; the type may be another floating one."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{operation}: {name} has shape {tuple(tensor.shape)}, wanted {tuple(shape)}")
    if tensor.device != like.device:
        raise ValueError(f"{operation}: {name} lies on {tensor.device}, wanted {like.device}")
    if tensor.dtype not in FLOATS:
        raise ValueError(f"{operation}: {name} is {tensor.dtype}, wanted float32, float16 or bfloat16")
