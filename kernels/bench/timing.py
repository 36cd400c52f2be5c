"""Time on a GPU, and the two rates that it reaches at best."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

REPEATS = 50
CACHE_BYTES = 256 << 20  # more than any chip's cache: written between runs, so that every run begins with a cold one


def milliseconds(run: Callable[[], Any]) -> float:
    """The median time of `run` as a CUDA graph: what the GPU takes, without what Python takes to ask for it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return milliseconds_as_called(graph.replay)


def milliseconds_as_called(run: Callable[[], Any]) -> float:
    """The median time between events before and after `run`, with whatever the host does meanwhile."""
    run()
    cache = torch.empty(CACHE_BYTES, dtype=torch.uint8, device="cuda")
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cache.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (milliseconds(lambda: target.copy_(source)) / 1e3)


def matmul_rate(dtype: torch.dtype) -> float:
    """FLOPs per second of a product of two 8192 x 8192 matrices."""
    a, b = (torch.randn(8192, 8192, device="cuda").to(dtype) for _ in range(2))
    return 2 * 8192**3 / (milliseconds(lambda: a @ b) / 1e3)
