"""GroupNorm + SiLU against float64, in both memory formats, in one pass and in two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.group_norm_silu import reference
from kernels.group_norm_silu.kernel import choose_blocks, group_norm_silu
from kernels.testing import DEVICE, DTYPES, assert_close, double, few, randn, sizes

SMALL = [
    (2, 8, 5, 7, 4),  # odd map
    (1, 12, 1, 1, 4),  # one position
    (3, 6, 4, 9, 2),  # three channels to a group: not a power of two
    (1, 32, 40, 33, 1),  # one group of 42240: two passes
]
REAL = [(1, 320, 64, 64, 8), (8, 640, 32, 32, 8), (2, 1280, 16, 16, 32), (1, 128, 512, 512, 8)]
# modulated, residual added, channels last, type: every value of each with every type
OPTIONS = [
    (modulated, add, last, dtype)
    for dtype in DTYPES
    for modulated, add, last in [(False, False, True), (True, False, False), (True, True, True)]
]


def make_inputs(b: int, c: int, h: int, w: int, dtype: torch.dtype, modulated: bool, add: bool, last: bool) -> list[Tensor | None]:
    x, residual = (randn(b, c, h, w, dtype=dtype) for _ in range(2))
    if last:
        x, residual = (each.to(memory_format=torch.channels_last) for each in (x, residual))
    scale, shift = randn(b, 2 * c, dtype=dtype).chunk(2, 1)  # as a layer's modulation gives them: not contiguous
    weight, bias = randn(c, dtype=dtype), randn(c, dtype=dtype)
    return [x, weight, bias, *((scale, shift) if modulated else (None, None)), residual if add else None]


def run(function: Callable[..., tuple[Tensor, Tensor]], inputs: list[Any], groups: int) -> tuple[Tensor, Tensor]:
    x, weight, bias, scale, shift, residual = [*inputs, None, None, None][:6]
    return function(x, weight, bias, groups, 1e-5, scale, shift, residual)


@pytest.mark.parametrize(("modulated", "add", "last", "dtype"), OPTIONS)
@pytest.mark.parametrize(("b", "c", "h", "w", "groups"), sizes(SMALL, REAL))
def test_equals_the_reference(
    b: int, c: int, h: int, w: int, groups: int, modulated: bool, add: bool, last: bool, dtype: torch.dtype
) -> None:
    inputs = make_inputs(b, c, h, w, dtype, modulated, add, last)
    total, y = run(group_norm_silu, inputs, groups)
    want_total, want = run(reference.group_norm_silu, double(*inputs), groups)
    assert_close(total, want_total)
    assert_close(y, want)
    assert y.stride() == inputs[0].stride()  # type: ignore[union-attr]


@few
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(1, 12), st.integers(1, 12), st.booleans(), st.booleans())
def test_any_shape(b: int, group_channels: int, groups: int, h: int, w: int, modulated: bool, add: bool) -> None:
    inputs = make_inputs(b, group_channels * groups, h, w, torch.float32, modulated, add, False)
    assert_close(run(group_norm_silu, inputs, groups)[1], run(reference.group_norm_silu, double(*inputs), groups)[1])


def test_input_in_no_memory_format() -> None:
    x = randn(2, 8, 6, 10)[:, :, ::2, 1::3]
    weight, bias = randn(8), randn(8)
    assert_close(run(group_norm_silu, [x, weight, bias], 4)[1], run(reference.group_norm_silu, double(x, weight, bias), 4)[1])


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # the interpreter's, of the sigmoid far below zero
@pytest.mark.parametrize("shape", [(1, 8, 5, 7), (1, 8, 64, 64)], ids=["one pass", "two passes"])
def test_extreme_values(shape: tuple[int, ...]) -> None:
    weight, bias = torch.ones(8, device=DEVICE), torch.zeros(8, device=DEVICE)
    far = randn(*shape) + 1e4  # a mean that a plain sum of squares would drown the variance in
    wanted = run(reference.group_norm_silu, double(far, weight, bias), 1)[1]
    assert (group_norm_silu(far, weight, bias, groups=1)[1] - wanted).abs().max() < 5e-3  # 1e4 itself is only known to 5e-4
    constant = torch.full(shape, 3.0, device=DEVICE)
    shifted = [constant, weight, bias + 2]
    assert_close(run(group_norm_silu, shifted, 1)[1], run(reference.group_norm_silu, double(*shifted), 1)[1])
    steep = group_norm_silu(randn(*shape), weight * 1e4, bias, groups=1)[1]
    assert torch.isfinite(steep).all()


@pytest.mark.parametrize(("modulated", "add", "last", "dtype"), OPTIONS)
@pytest.mark.parametrize(("b", "c", "h", "w", "groups"), sizes([(2, 6, 5, 7, 2), (1, 32, 40, 33, 1)], REAL))
def test_gradients(b: int, c: int, h: int, w: int, groups: int, modulated: bool, add: bool, dtype: torch.dtype, last: bool) -> None:
    inputs = make_inputs(b, c, h, w, dtype, modulated, add, last)
    ours = [None if each is None else each.detach().requires_grad_() for each in inputs]
    true = [None if each is None else each.requires_grad_() for each in double(*inputs)]
    up = randn(b, c, h, w, dtype=dtype)
    for function, leaves in [(group_norm_silu, ours), (reference.group_norm_silu, true)]:
        total, y = run(function, leaves, groups)
        loss = (y * up.to(y.dtype)).sum() + (total.square().sum() if add else 0)
        loss.backward()
    for got, want in zip(ours, true):
        if got is not None and want is not None:
            assert_close(got.grad, want.grad)  # type: ignore[arg-type]


def test_gradients_of_a_linear_map() -> None:
    """Without dy's rounding: the gradient at x sums to nothing over a group, whatever comes from above."""
    x = randn(1, 4, 3, 5).requires_grad_()
    group_norm_silu(x, torch.ones(4, device=DEVICE), torch.zeros(4, device=DEVICE), 2)[1].backward(randn(1, 4, 3, 5))
    assert x.grad is not None
    assert x.grad.reshape(2, -1).sum(1).abs().max() < 1e-5


def test_blocks_cover_a_group_once() -> None:
    for channels, positions in [(1, 1), (40, 4096), (16, 262144), (3, 5461), (2560, 9)]:
        blocks = choose_blocks(channels, positions, 4)
        assert blocks.c >= channels
        assert max(blocks.chunks, 1) * blocks.span >= positions
        assert (max(blocks.chunks, 1) - 1) * blocks.span < positions


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": torch.zeros(2, 8, 4, device=DEVICE)}, r"x has shape \(2, 8, 4\)"),
        ({"x": torch.zeros(2, 8, 4, 4, device=DEVICE, dtype=torch.float64)}, "x is torch.float64"),
        ({"groups": 3}, "groups is 3"),
        ({"weight": torch.zeros(4, device=DEVICE)}, r"weight has shape \(4,\), wanted \(8,\)"),
        ({"scale": torch.zeros(2, 8, device=DEVICE)}, "shift is None"),
        ({"residual": torch.zeros(2, 8, 4, 5, device=DEVICE)}, "residual has shape"),
        ({"bias": torch.zeros(8, device="meta")}, "bias lies on meta"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, named: str) -> None:
    arguments = {"x": randn(2, 8, 4, 4), "weight": randn(8), "bias": randn(8), "groups": 4} | change
    with pytest.raises(ValueError, match=f"group_norm_silu: {named}"):
        group_norm_silu(**arguments)
