"""Fused Triton operations, one folder each, beside their plain-torch references.

``apply`` swaps them into a model and ``remove`` takes them out again; the parameters stay where they are.
"""

from __future__ import annotations

import flashlips_edge  # noqa: F401  first: it says what is not installed

# isort: split
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def apply(model: Model) -> Model:
    """The model itself, with every layer that has a fused operation running it: on a GPU, or under Triton's interpreter.

    Each operation that a layer can run has ``module.py``, whose ``FUSED`` names the layers and what takes their place.
    """
    return _swap(model, _fused())


def remove(model: Model) -> Model:
    """The model itself, with every layer plain again."""
    return _swap(model, {fused: plain for plain, fused in _fused().items()})


def _swap(model: Model, swaps: dict[type[nn.Module], type[nn.Module]]) -> Model:
    for module in model.modules():
        if type(module) in swaps:
            module.__class__ = swaps[type(module)]
    return model


def _fused() -> dict[type[nn.Module], type[nn.Module]]:
    """Every plain layer and its fused subclass."""
    operations = sorted(path.parent.name for path in Path(__file__).parent.glob("*/module.py"))
    return {plain: fused for name in operations for plain, fused in import_module(f"kernels.{name}.module").FUSED.items()}
