"""What the kernels' tests share: where they run, tolerances, poisoned outputs, and a process without the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import settings
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# Largest difference from the float64 reference of the same rounded inputs, against |reference| + its root mean square.
# Kernels sum in float32 and round to the type at most four times on the way (queries, probabilities, their mix, the output):
# four half units in the last place, 4 * 2^-11 for float16 and 4 * 2^-8 for bfloat16. Float32 is bounded by the order of its sums:
# 2^-24 times the square root of some 10^4 terms, four times over.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2.5e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

# A whole network with kernels applied against the one without, both in float32: some hundred layers, each with its own order of sums.
NETWORK_TOLERANCE = 4 * TOLERANCE[torch.float32]

# the interpreter is slow: few examples for hypothesis
few = settings(deadline=None, max_examples=10, derandomize=True)


def sizes(small: list[Any], real: list[Any]) -> list[Any]:
    """The small sizes, and the real ones too where there is a GPU."""
    return small + real if DEVICE == "cuda" else small


def randn(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    """Normal noise on the device under test, already rounded to dtype."""
    return (torch.randn(*shape) * scale).to(DEVICE, dtype)


def double(*tensors: Tensor | None) -> list[Any]:
    """Float64 copies for a reference; None stays None."""
    return [None if tensor is None else tensor.detach().double() for tensor in tensors]


def assert_close(got: Tensor, want: Tensor, dtype: torch.dtype | None = None, tolerance: float | None = None) -> None:
    """``got`` has want's shape and equals it within the tolerance of dtype, by default got's own, or within the one given."""
    assert got.shape == want.shape
    tolerance = tolerance or TOLERANCE[dtype or got.dtype]
    want = want.double()
    limit = tolerance * (want.abs() + want.square().mean().sqrt())
    error = (got.double() - want).abs()
    assert (error <= limit).all(), f"largest error {(error / limit).max():.2f} times the tolerance, {tolerance}"


@contextmanager
def poisoned_outputs() -> Iterator[None]:
    """Makes torch.empty and its kin hand out NaN, or for integers an odd number, so that an unwritten output shows."""

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def filled(*args: Any, **kwargs: Any) -> Tensor:
            out = make(*args, **kwargs)
            return out.fill_(float("nan") if out.is_floating_point() else 0 if out.dtype == torch.bool else 93)

        return filled

    with (
        mock.patch.multiple(
            torch, empty=poisoned(torch.empty), empty_like=poisoned(torch.empty_like), empty_strided=poisoned(torch.empty_strided)
        ),
        mock.patch.object(Tensor, "new_empty", poisoned(Tensor.new_empty)),
    ):
        yield


def run_uninterpreted(*arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """``python *arguments`` in the repository's root, in a process of its own where Triton compiles instead of interpreting."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).resolve().parent.parent
    return subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, timeout=timeout_s)
