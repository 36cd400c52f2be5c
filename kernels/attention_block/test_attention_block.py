"""attention_block against its formula in float64: sizes, layouts, ragged batches, extreme values, gradients, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kernels
from flashlips_edge.models.layers import Attention, AttentionBlock
from kernels.attention_block import reference
from kernels.attention_block.kernel import attention_block
from kernels.testing import DEVICE, DTYPES, assert_close, double, few, randn, sizes

NAMES = ("qkv_weight", "qkv_bias", "project_weight", "project_bias")


def weights(width: int, dtype: torch.dtype) -> list[Tensor]:
    shapes = (3 * width, width), (3 * width,), (width, width), (width,)
    return [randn(*shape, dtype=dtype, scale=shape[-1] ** -0.5) for shape in shapes]


def check(x: Tensor, parameters: list[Tensor], heads: int, norm: list[Tensor] | None = None, **options: Any) -> None:
    got = attention_block(x, *parameters, heads, *(norm or []), **options)
    want = reference.attention_block(*double(x, *parameters), heads, *double(*(norm or [])), **options)
    assert_close(got, want, x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "length", "heads", "head_size"),
    sizes(
        [(2, 60, 2, 64), (1, 65, 1, 128), (1, 7, 3, 32), (2, 33, 2, 40)],  # one block, one key over, fewer than a block, not a power of two
        [(8, 1024, 8, 64), (1, 4096, 8, 128)],
    ),
)
def test_tokens(batch: int, length: int, heads: int, head_size: int, dtype: torch.dtype) -> None:
    width = heads * head_size
    check(randn(batch, length, width, dtype=dtype), weights(width, dtype), heads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_with_norm_and_residual(layout: torch.memory_format, dtype: torch.dtype) -> None:
    x = randn(2, 96, 5, 13, dtype=dtype).contiguous(memory_format=layout)
    norm = [1 + randn(96, dtype=dtype, scale=0.2), randn(96, dtype=dtype, scale=0.2)]
    check(x, weights(96, dtype), 2, norm, groups=8)


@few
@given(st.integers(1, 70), st.integers(1, 3), st.sampled_from([16, 24, 32, 72]))
def test_any_length_and_head(length: int, heads: int, head_size: int) -> None:
    width = heads * head_size
    check(randn(1, length, width), weights(width, torch.float32), heads)


def test_keys_past_the_length_are_not_seen() -> None:
    parameters = weights(64, torch.float32)
    x = randn(3, 40, 64)
    lengths = torch.tensor([40, 17, 1], dtype=torch.int32, device=DEVICE)
    check(x, parameters, 2, lengths=lengths)
    alone = attention_block(x[1:2, :17], *parameters, 2)
    padded = attention_block(x, *parameters, 2, lengths=lengths)[1:2, :17]
    assert_close(padded, alone)


def test_large_scores_and_a_large_mean_keep_their_digits() -> None:
    parameters = [weight * 30 for weight in weights(32, torch.float32)]
    assert attention_block(randn(1, 20, 32), *parameters, 1).isfinite().all()
    norm = [torch.ones(32, device=DEVICE), torch.zeros(32, device=DEVICE)]
    x = randn(1, 32, 4, 4)
    parameters = weights(32, torch.float32)
    shifted = attention_block(x + 100, *parameters, 1, *norm, groups=4) - 100
    assert (shifted - attention_block(x, *parameters, 1, *norm, groups=4)).abs().max() < 1e-3


def test_strided_tokens_need_no_copy() -> None:
    x = randn(60, 2, 3, 64)[:, :, 1].transpose(0, 1)  # [2, 60, 64]
    assert not x.is_contiguous()
    check(x, weights(64, torch.float32), 2)


def test_gradients_are_the_formulas() -> None:
    x = randn(1, 32, 3, 5).requires_grad_()
    parameters = [weight.requires_grad_() for weight in weights(32, torch.float32)]
    norm = [(1 + randn(32, scale=0.2)).requires_grad_(), randn(32).requires_grad_()]
    leaves = [x, *parameters, *norm]
    out = attention_block(x, *parameters, 2, *norm, groups=4)
    towards = randn(*out.shape)
    got = torch.autograd.grad(out, leaves, towards)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    want = torch.autograd.grad(reference.attention_block(*wide[:5], 2, *wide[5:], groups=4), wide, towards.double())
    for one, other in zip(got, want):
        assert_close(one, other)


def test_a_frozen_weight_gets_no_gradient() -> None:
    x, parameters = randn(1, 5, 32).requires_grad_(), weights(32, torch.float32)
    attention_block(x, *parameters, 2).sum().backward()
    assert x.grad is not None
    assert parameters[0].grad is None


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_shape_is_named(name: str) -> None:
    parameters = dict(zip(NAMES, weights(32, torch.float32)))
    parameters[name] = parameters[name][1:]
    with pytest.raises(ValueError, match=rf"attention_block: {name} .*wanted"):
        attention_block(randn(1, 4, 32), heads=1, **parameters)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(1, 4, 32, dtype=torch.float64)}, "x is torch.float64"),
        ({"x": torch.zeros(4, 32)}, "x has 2 dimensions"),
        ({"heads": 3}, "heads is 3 at width 32"),
        ({"heads": 4}, "heads of 16 to 128"),
        ({"lengths": torch.ones(1)}, "lengths is torch.float32"),
        ({"norm_weight": torch.ones(32)}, "norm_bias is None"),
        ({"norm_weight": torch.ones(32), "norm_bias": torch.ones(32), "groups": 5}, "groups is 5"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], message: str) -> None:
    arguments = {"x": randn(1, 4, 32), "heads": 2, **dict(zip(NAMES, weights(32, torch.float32)))}
    arguments |= {name: value.to(DEVICE) if isinstance(value, Tensor) else value for name, value in change.items()}
    with pytest.raises(ValueError, match=message):
        attention_block(**arguments)


def test_applied_modules_give_what_plain_ones_give() -> None:
    block, tokens = AttentionBlock(64, 2).to(DEVICE), Attention(64, 2).to(DEVICE)
    torch.nn.init.normal_(block.attention.project.weight, std=0.1)
    with torch.no_grad():
        maps, sequence = randn(2, 64, 6, 5), randn(2, 9, 64)
        want = block(maps), tokens(sequence)
        kernels.apply(block), kernels.apply(tokens)
        got = block(maps), tokens(sequence)
    for one, other in zip(got, want):
        assert_close(one, other)
