"""One row of the table for each case: first that it is right, then, on a GPU, how long it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.bench.cases import Case, layer_cases, network_cases
from kernels.bench.table import MEASURED, Row
from kernels.bench.timing import copy_bandwidth, matmul_rate, milliseconds
from kernels.testing import DEVICE, assert_close

LIBRARIES = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


def measure(preset: dict[str, Any], batch: int, dtype: torch.dtype) -> Iterator[Row]:
    """The rows of a preset. Raises AssertionError at the first case that is wrong: what is wrong is not timed."""
    limits = (copy_bandwidth(), matmul_rate(dtype)) if DEVICE == "cuda" else (math.inf, math.inf)
    with torch.no_grad():
        for case in chain(layer_cases(preset, batch, DEVICE, dtype), network_cases(preset, batch, DEVICE, dtype)):
            check(case)
            times = _times(case, *limits) if DEVICE == "cuda" else {}
            counted = {"megabytes": case.bytes / 1e6, "gflop": case.flops / 1e9}
            named = {"dtype": str(dtype).removeprefix("torch."), "operation": case.operation, "shape": case.shape}
            yield {**named, **dict.fromkeys(MEASURED, ""), **{key: f"{value:.6g}" for key, value in {**counted, **times}.items()}}


def check(case: Case) -> None:
    """Raises AssertionError when ours is further from float64 than its type allows."""
    ours, exact = (x if isinstance(x, tuple) else (x,) for x in (case.fused(*case.inputs), case.exact()))
    for got, want in zip(ours, exact):
        if isinstance(got, Tensor):
            assert_close(got, want)


def _times(case: Case, bandwidth: float, rate: float) -> dict[str, float]:
    """Milliseconds of each way, `copy_ms` of a copy that moves as many bytes, and `limit_ms`, below which no way can be."""

    def plain() -> Any:
        return case.plain(*case.inputs)

    compiled = torch.compile(case.plain, mode="max-autotune-no-cudagraphs", dynamic=False)  # a graph is captured of every way alike
    copy = 1e3 * case.bytes / bandwidth
    times = {
        "ours_ms": milliseconds(lambda: case.fused(*case.inputs)),
        "eager_ms": milliseconds(plain),
        "compile_ms": milliseconds(lambda: compiled(*case.inputs)),
        "copy_ms": copy,
        "limit_ms": max(copy, 1e3 * case.flops / rate),
    }
    if case.operation == "attention_block":
        times["library_ms"] = min(time for library in LIBRARIES if (time := _with(library, plain)) is not None)
    torch.compiler.reset()
    return times


def _with(library: SDPBackend, plain: Any) -> float | None:
    """The time with one of torch's attention libraries, or None where it does not take these shapes."""
    try:
        with sdpa_kernel(library):
            return milliseconds(plain)
    except RuntimeError:
        return None
