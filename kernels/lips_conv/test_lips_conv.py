"""The lips convolution against float64: every border case, both memory formats, odd sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flashlips_edge.models.layers import LIPS
from kernels.lips_conv import reference
from kernels.lips_conv.kernel import lips_conv
from kernels.testing import DEVICE, DTYPES, assert_close, double, few, randn, sizes

SMALL = [
    (2, 5, 7, 9, 20),  # nothing a power of two
    (1, 1, 1, 1, 1),  # every tap but one falls outside
    (1, 3, 1, 6, 4),  # a single row: top and bottom at once
    (1, 70, 6, 5, 40),  # several steps of the sum, several tiles of out
]
REAL = [(1, 260, 64, 64, 320), (8, 144, 24, 32, 128)]


def make_inputs(b: int, c: int, h: int, w: int, out: int, dtype: torch.dtype, last: bool, weight_last: bool) -> list[Tensor]:
    x, weight = randn(b, c, h, w, dtype=dtype), randn(out, c + LIPS, 3, 3, dtype=dtype)
    if last:
        x = x.to(memory_format=torch.channels_last)
    if weight_last:
        weight = weight.to(memory_format=torch.channels_last)
    return [x, randn(b, LIPS, dtype=dtype), weight, randn(out, dtype=dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("last", "weight_last"), [(False, False), (True, True)], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize(("b", "c", "h", "w", "out"), sizes(SMALL, REAL))
def test_equals_the_reference(b: int, c: int, h: int, w: int, out: int, last: bool, weight_last: bool, dtype: torch.dtype) -> None:
    inputs = make_inputs(b, c, h, w, out, dtype, last, weight_last)
    got = lips_conv(*inputs)
    assert_close(got, reference.lips_conv(*double(*inputs)))
    assert got.dtype == dtype
    assert got.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@few
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 8), st.integers(1, 8), st.integers(1, 40), st.booleans(), st.booleans())
def test_any_shape(b: int, c: int, h: int, w: int, out: int, last: bool, weight_last: bool) -> None:
    inputs = make_inputs(b, c, h, w, out, torch.float32, last, weight_last)
    assert_close(lips_conv(*inputs), reference.lips_conv(*double(*inputs)))


def test_inputs_in_no_memory_format() -> None:
    inputs = [randn(2, 6, 5, 8)[:, ::2, :, 1::2], randn(LIPS, 2).t(), randn(8, 3 + LIPS, 3, 6)[..., ::2], randn(16)[::2]]
    assert_close(lips_conv(*inputs), reference.lips_conv(*double(*inputs)))


def test_lips_reach_the_border_as_a_convolved_constant_does() -> None:
    """With x at zero and all weights one: 9 taps inside, 6 at an edge, 4 in a corner."""
    x, weight = torch.zeros(1, 2, 3, 3, device=DEVICE), torch.ones(1, 2 + LIPS, 3, 3, device=DEVICE)
    out = lips_conv(x, torch.full((1, LIPS), 1 / LIPS, device=DEVICE), weight, torch.zeros(1, device=DEVICE))
    wanted = torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]], device=DEVICE)
    assert torch.allclose(out[0, 0], wanted, atol=1e-5)


def test_extreme_values() -> None:
    x, lips, weight, bias = make_inputs(1, 4, 5, 6, 8, torch.float32, True, True)
    inputs = [x * 1e15, lips * -1e15, weight * 1e15, bias]
    assert_close(lips_conv(*inputs), reference.lips_conv(*double(*inputs)))
    zero = lips_conv(*(torch.zeros_like(each) for each in inputs))
    assert (zero == 0).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": torch.zeros(2, 3, 4, device=DEVICE)}, r"x has shape \(2, 3, 4\)"),
        ({"lips": torch.zeros(2, 8, device=DEVICE)}, r"lips has shape \(2, 8\), wanted \(2, 12\)"),
        ({"weight": torch.zeros(8, 3, 3, 3, device=DEVICE)}, r"weight has shape \(8, 3, 3, 3\), wanted \(8, 15, 3, 3\)"),
        ({"bias": torch.zeros(4, device=DEVICE)}, "bias has shape"),
        ({"lips": torch.zeros(2, LIPS, device=DEVICE, dtype=torch.float16)}, "lips is torch.float16, wanted torch.float32"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, named: str) -> None:
    arguments = {"x": randn(2, 3, 4, 4), "lips": randn(2, LIPS), "weight": randn(8, 3 + LIPS, 3, 3), "bias": randn(8)} | change
    with pytest.raises(ValueError, match=f"lips_conv: {named}"):
        lips_conv(**arguments)
