"""flow_step against its formula in float64, and audio to lips with it against audio to lips without."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kernels
from flashlips_edge.models.audio_to_lips import AudioToLips
from kernels.flow_step import reference
from kernels.flow_step.kernel import flow_step
from kernels.testing import DEVICE, DTYPES, assert_close, double, few, randn, sizes


def case(b: int, p: int, t: int, width: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    shapes = {
        "z": (b, t, 12),
        "velocities": (2 * b, t, 12),
        "enter_weight": (width, 12),
        "enter_bias": (width,),
        "before": (2 * b, p, width),
        "position": (1, p + t, width),
    }
    return {name: randn(*shape, dtype=dtype) for name, shape in shapes.items()}


def check(tensors: dict[str, Tensor], size: float = 0.1, guidance: float = 2.0) -> None:
    got = flow_step(**tensors, size=size, guidance=guidance)
    want = reference.flow_step(**dict(zip(tensors, double(*tensors.values()))), size=size, guidance=guidance)
    for one, other in zip(got, want):
        assert_close(one, other, tensors["z"].dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("b", "p", "t", "width"), sizes([(2, 3, 14, 130), (1, 10, 50, 64)], [(8, 10, 50, 1024)]))
def test_formula(b: int, p: int, t: int, width: int, dtype: torch.dtype) -> None:
    check(case(b, p, t, width, dtype))


@few
@given(st.integers(1, 3), st.integers(0, 20), st.integers(1, 40), st.integers(1, 200), st.floats(0, 4))
def test_any_size(b: int, p: int, t: int, width: int, guidance: float) -> None:
    check(case(b, p, t, width), guidance=guidance)


def test_strided_velocities_are_read_right() -> None:
    tensors = case(2, 3, 5, 32)
    tensors["velocities"] = randn(5, 4, 12).transpose(0, 1)
    check(tensors)


@pytest.mark.parametrize("name", ["velocities", "enter_weight", "enter_bias", "position"])
def test_a_wrong_shape_is_named(name: str) -> None:
    tensors = case(1, 2, 3, 32)
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    with pytest.raises(ValueError, match=f"flow_step: {name} has shape"):
        flow_step(**tensors, size=0.1, guidance=1.0)


def test_a_wrong_type_is_named() -> None:
    with pytest.raises(ValueError, match="flow_step: z is torch.float64"):
        flow_step(**{name: tensor.double() for name, tensor in case(1, 2, 3, 32).items()}, size=0.1, guidance=1.0)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_applied_network_gives_what_the_plain_one_gives(solver: str) -> None:
    model = small_audio_to_lips(solver)
    inputs = randn(1, 9, 12), randn(1, 9, 8), randn(1, 3), randn(1, 2, 12), randn(1, 3, 12)
    with torch.no_grad():
        want = model(*inputs)
        got = kernels.apply(model)(*inputs)
        again = kernels.remove(model)(*inputs)
    assert_close(got, want)
    assert torch.equal(again, want)


def test_applied_network_can_be_trained_through() -> None:
    model = kernels.apply(small_audio_to_lips("euler"))
    noise = randn(1, 9, 12).requires_grad_()
    model(noise, randn(1, 9, 8), randn(1, 3), randn(1, 2, 12), randn(1, 3, 12)).sum().backward()
    assert noise.grad is not None


def small_audio_to_lips(solver: str) -> AudioToLips:
    model = AudioToLips(
        speech_width=8, width=32, layers=1, heads=2, window=9, previous=3, references=2, emotions=3, steps=2, guidance=1.5, solver=solver
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # what starts at zero would hide a mistake
    return model.to(DEVICE)
