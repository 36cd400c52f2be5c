"""One row of the table for each case: first that it is right, then, on a GPU, how long it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.bench.cases import Case, layer_cases, network_cases, tensors
from kernels.bench.functions import function_cases
from kernels.bench.table import MEASURED, Row
from kernels.bench.timing import copy_bandwidth, matmul_rate, milliseconds, milliseconds_as_called
from kernels.testing import DEVICE, TOLERANCE

LIBRARIES = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
WORSE_THAN_TORCH = 1.5  # times plain torch's own distance from float64, in the same type


class WrongError(Exception):
    """A kernel's answer is wrong, so nothing is reported."""


def measure(preset: dict[str, Any], batch: int, dtype: torch.dtype) -> Iterator[Row]:
    """The rows of a preset. Raises WrongError at the first case that is wrong: what is wrong is not timed."""
    limits = (copy_bandwidth(), matmul_rate(dtype)) if DEVICE == "cuda" else (math.inf, math.inf)
    with torch.no_grad():
        for case in chain(*(cases(preset, batch, DEVICE, dtype) for cases in (layer_cases, function_cases, network_cases))):
            check(case, dtype)
            times = _times(case, *limits) if DEVICE == "cuda" else {}
            counted = {"megabytes": case.bytes / 1e6, "gflop": case.flops / 1e9}
            named = {"dtype": str(dtype).removeprefix("torch."), "operation": case.operation, "shape": case.shape}
            yield {**named, **dict.fromkeys(MEASURED, ""), **{key: f"{value:.6g}" for key, value in {**counted, **times}.items()}}


def check(case: Case, dtype: torch.dtype) -> None:
    """Raises WrongError when ours is further from the exact answer than its type allows, and than plain torch is, or is not a number."""
    ours, exact = tensors(case.fused()), tensors(case.exact())
    plain = tensors(case.plain()) if case.plain else exact
    for got, torchs, want in zip(ours, plain, exact):
        difference = got.double() - want.double()
        limit = max(TOLERANCE[dtype] * _size(want.double()), WORSE_THAN_TORCH * _size(torchs.double() - want.double()))
        one_off = case.step and difference.abs().max() <= case.step * (1 + TOLERANCE[dtype])
        if not (one_off or _size(difference) <= limit):
            raise WrongError(f"{case.operation}, {case.shape}: {_size(difference):.3g} from float64's answer, {limit:.3g} is allowed")


def _size(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _times(case: Case, bandwidth: float, rate: float) -> dict[str, float]:
    """Milliseconds of each way, `copy_ms` of a copy that moves as many bytes, and `limit_ms`, below which no way can be."""
    clock = milliseconds if case.captured else milliseconds_as_called
    copy = 1e3 * case.bytes / bandwidth
    times = {"ours_ms": clock(case.fused), "copy_ms": copy, "limit_ms": max(copy, 1e3 * case.flops / rate)}
    if case.plain is not None:
        times["eager_ms"] = clock(case.plain)
    if case.plain is not None and case.captured:
        # max-autotune without its own CUDA graph: one is captured of every way alike
        times["compile_ms"] = milliseconds(torch.compile(case.plain, mode="max-autotune-no-cudagraphs", dynamic=False))
        torch.compiler.reset()
    if case.plain is not None and case.operation == "attention_block":
        found = [_with(library, case.plain) for library in LIBRARIES]
        times["library_ms"] = min([times["eager_ms"], *(time for time in found if time is not None)])
    return times


def _with(library: SDPBackend, plain: Callable[[], Any]) -> float | None:
    """The time with one of torch's attention libraries, or None where it does not take these shapes."""
    try:
        with sdpa_kernel(library):
            return milliseconds(plain)
    except RuntimeError:
        return None
