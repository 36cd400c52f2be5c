"""Worker processes, which end when the process that they work for does, killed or not."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread


def worker_pool(count: int) -> ProcessPoolExecutor:
    """A pool of ``count`` processes."""
    spawn = get_context("spawn")  # a fork would copy the locks of torch and OpenCV
    return ProcessPoolExecutor(count, spawn, initializer=end_with_parent)


def end_with_parent(*_: object) -> None:
    """Called in a worker process: it ends at once, whatever it is doing, when its parent is gone. A DataLoader's number is ignored."""
    Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()  # a pipe that closes with the parent, on every system; what Linux has of its own goes by threads
    os._exit(1)
