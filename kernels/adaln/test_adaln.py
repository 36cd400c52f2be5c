"""AdaLN against float64: LayerNorm and RMSNorm, conditions step by step and for all steps alike, and its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.adaln import reference
from kernels.adaln.kernel import adaln
from kernels.testing import DEVICE, DTYPES, assert_close, double, few, randn, sizes

SMALL = [
    (2, 5, 48),  # width not a power of two
    (1, 1, 1),  # a single number
    (3, 7, 100),  # rows do not fill the last program
]
REAL = [(1, 2048, 1024), (8, 2048, 1024), (1, 60, 1024), (4, 577, 1152)]


def make_inputs(b: int, length: int, width: int, dtype: torch.dtype, steps: int, add: bool) -> list[Tensor | None]:
    """x, scale, shift, branch, gate; the conditions as a layer gives them: slices of one tensor."""
    x, branch = (randn(b, length, width, dtype=dtype) for _ in range(2))
    scale, shift, gate = randn(b, steps, 3 * width, dtype=dtype).chunk(3, -1)
    return [x, scale, shift, *((branch, gate) if add else (None, None))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("norm", "alike", "add"), [("layer", False, True), ("layer", True, False), ("rms", True, True)])
@pytest.mark.parametrize(("b", "length", "width"), sizes(SMALL, REAL))
def test_equals_the_reference(b: int, length: int, width: int, norm: str, alike: bool, add: bool, dtype: torch.dtype) -> None:
    inputs = make_inputs(b, length, width, dtype, 1 if alike else length, add)
    for got, want in zip(run(adaln, inputs, norm), run(reference.adaln, double(*inputs), norm)):
        assert_close(got, want)


def run(function: Any, inputs: list[Any], norm: str) -> tuple[Tensor, Tensor]:
    return function(*inputs, norm=norm)


@few
@given(st.integers(1, 3), st.integers(1, 40), st.integers(2, 130), st.booleans(), st.booleans())
def test_any_shape(b: int, length: int, width: int, alike: bool, add: bool) -> None:
    inputs = make_inputs(b, length, width, torch.float32, 1 if alike else length, add)
    assert_close(run(adaln, inputs, "layer")[1], run(reference.adaln, double(*inputs), "layer")[1])


def test_conditions_of_different_strides_and_input_in_no_order() -> None:
    x = randn(5, 2, 64).transpose(0, 1)[:, :, ::2]
    inputs = [x, randn(2, 1, 32), randn(2, 5, 64)[:, :, ::2], randn(2, 5, 32), randn(1, 1, 32).expand(2, 1, 32)]
    for got, want in zip(run(adaln, inputs, "layer"), run(reference.adaln, double(*inputs), "layer")):
        assert_close(got, want)


def test_extreme_values() -> None:
    none = torch.zeros(1, 1, 64, device=DEVICE)
    far = randn(1, 3, 64) + 1e4
    assert (adaln(far, none, none)[1] - reference.adaln(*double(far, none, none))[1]).abs().max() < 5e-3  # 1e4 is only known to 5e-4
    constant = torch.full((1, 3, 64), 7.0, device=DEVICE)
    assert_close(adaln(constant, none, none)[1], torch.zeros_like(constant))
    large = randn(1, 3, 64, dtype=torch.float16, scale=1e4)  # its squares are not float16's
    assert_close(adaln(large, none, none)[1], reference.adaln(*double(large, none, none))[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("norm", "alike", "add"), [("layer", False, True), ("layer", True, True), ("layer", True, False), ("rms", False, True)]
)
@pytest.mark.parametrize(("b", "length", "width"), sizes([(2, 5, 48)], REAL))
def test_gradients(b: int, length: int, width: int, norm: str, alike: bool, add: bool, dtype: torch.dtype) -> None:
    inputs = make_inputs(b, length, width, dtype, 1 if alike else length, add)
    ours = [None if each is None else each.detach().requires_grad_() for each in inputs]
    true = [None if each is None else each.requires_grad_() for each in double(*inputs)]
    up = randn(b, length, width, dtype=dtype)
    for function, leaves in [(adaln, ours), (reference.adaln, true)]:
        total, y = run(function, leaves, norm)
        ((y * up.to(y.dtype)).sum() + total.square().sum()).backward()
    for got, want in zip(ours, true):
        if got is not None and want is not None:
            assert_close(got.grad, want.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": torch.zeros(2, 8, device=DEVICE)}, r"x has shape \(2, 8\), wanted \[B, L, width\]"),
        ({"x": torch.zeros(2, 5, 8, device=DEVICE, dtype=torch.int32)}, "x is torch.int32"),
        ({"norm": "batch"}, "norm is 'batch', wanted 'layer' or 'rms'"),
        ({"shift": torch.zeros(2, 4, 8, device=DEVICE)}, r"shift has shape \(2, 4, 8\), wanted \(2, 5, 8\)"),
        ({"gate": torch.zeros(2, 5, 8, device=DEVICE)}, "branch is None"),
        ({"branch": torch.zeros(2, 1, 8, device=DEVICE), "gate": torch.zeros(2, 5, 8, device=DEVICE)}, "branch has shape"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, named: str) -> None:
    arguments = {"x": randn(2, 5, 8), "scale": randn(2, 1, 8), "shift": randn(2, 5, 8)} | change
    with pytest.raises(ValueError, match=f"adaln: {named}"):
        adaln(**arguments)
