"""Kernels are tested on the GPU where there is one and under Triton's interpreter elsewhere; outputs are poisoned in every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from kernels.testing import poisoned_outputs

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated: before any kernel is imported
torch.backends.cudnn.allow_tf32 = False  # plain networks are compared at float32's own tolerance


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """An output that a kernel leaves unwritten holds NaN."""
    torch.manual_seed(0)
    with poisoned_outputs():
        yield
