"""paste_back against its formula and against what the run path pastes with OpenCV, on a real frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flashlips_edge.face.crop import cut, paste
from flashlips_edge.face.detect import Box
from flashlips_edge.media.colour import Colour, rgb_to_yuv, yuv_to_rgb
from kernels.frame_samples import FULL_601, LIMITED_709, nv12_of, real_frame
from kernels.paste_back import reference
from kernels.paste_back.kernel import paste_back
from kernels.testing import DEVICE, few


def smile(crop: np.ndarray) -> np.ndarray:
    """The crop with another mouth: darker, and moved by a few pixels, float [S, S, 3]."""
    edited = crop.astype(np.float64)
    size = len(crop)
    top, bottom, left, right = (round(size * share) for share in (0.65, 0.85, 0.3, 0.7))
    edited[top:bottom, left:right] = np.roll(edited, 3, 0)[top:bottom, left:right] * 0.7
    return edited


def tensor_of(picture: np.ndarray) -> Tensor:
    """[S, S, 3] in 0..255 -> [1, 3, S, S] in [0, 1]."""
    return (torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255).to(DEVICE)


def random_case(size: int, height: int, width: int, *transforms: Tensor, nv12: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch = len(transforms)
    frame = torch.randint(0, 256, (batch, height * 3 // 2, width) if nv12 else (batch, height, width, 3), dtype=torch.uint8)
    crop = torch.rand(batch, 3, size, size)
    edited = crop + torch.rand(batch, 3, size, size) * torch.rand(batch, 1, size, size) ** 8  # many pixels little changed, some past 1
    return frame.to(DEVICE), torch.stack(transforms), crop.to(DEVICE), edited.to(DEVICE)


def similarity(scale: float, angle: float, x: float, y: float) -> Tensor:
    """[2, 3]: turned, scaled, then moved by x, y crop pixels."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return torch.tensor([[c, -s, x], [s, c, y]])


def assert_same_bytes(got: Tensor, want: Tensor) -> None:
    away = (got.int() - want.int()).abs()
    assert away.max() <= 1  # halves may round either way
    assert (away > 0).double().mean() < 0.005


@pytest.mark.parametrize(
    "box", [Box(90.5, 60.2, 61, 61), Box(60, 30, 120, 120), Box(-10, 110, 100, 100)], ids=["larger", "smaller", "over the border"]
)
def test_it_pastes_what_the_run_path_pastes(box: Box) -> None:
    frame = real_frame()
    crop = cut(frame, box, 64)
    edited = smile(crop.image)
    want = paste(frame, crop, edited)
    got = (
        paste_back(
            torch.from_numpy(frame)[None].to(DEVICE), torch.from_numpy(crop.transform)[None], tensor_of(crop.image), tensor_of(edited)
        )[0]
        .cpu()
        .numpy()
    )
    assert (want != frame).any(2).sum() > 200
    away = np.abs(got.astype(int) - want)
    assert away.max() <= 6  # OpenCV rounds positions to 1/32 of a pixel
    assert away.mean() < 0.1
    assert ((got != frame).any(2) & (want == frame).all(2)).mean() < 0.005


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("colour", [None, LIMITED_709, FULL_601], ids=["rgb", "709 limited", "601 full"])
def test_formula(colour: Colour | None, dtype: torch.dtype) -> None:
    transforms = similarity(0.9, 0.2, 2, -3), similarity(1.3, -0.1, -8, 4)
    frame, transform, crop, edited = random_case(24, 32, 40, *transforms, nv12=colour is not None)
    crop, edited = crop.to(dtype), edited.to(dtype)
    got = paste_back(frame, transform, crop, edited, colour=colour)
    want = reference.paste_back(frame, transform, crop, edited, colour=colour)
    assert (want != frame).any()
    assert_same_bytes(got, want)


@few
@given(st.floats(0.4, 2.5), st.floats(-3, 3), st.floats(-20, 20), st.floats(-20, 20), st.integers(16, 30), st.integers(5, 30))
def test_any_similarity_and_size(scale: float, angle: float, x: float, y: float, size: int, height: int) -> None:
    case = random_case(size, height, 23, similarity(scale, angle, x, y))
    assert_same_bytes(paste_back(*case), reference.paste_back(*case))


@pytest.mark.parametrize("colour", [None, LIMITED_709], ids=["rgb", "nv12"])
def test_an_unchanged_crop_leaves_every_byte(colour: Colour | None) -> None:
    frame, transform, crop, _ = random_case(24, 32, 40, similarity(0.9, 0.2, 2, -3), nv12=colour is not None)
    assert torch.equal(paste_back(frame, transform, crop, crop, colour=colour), frame)


def test_nv12_looks_like_its_rgb() -> None:
    yuv = rgb_to_yuv(real_frame(), LIMITED_709)
    frame = yuv_to_rgb(yuv, LIMITED_709)
    crop = cut(frame, Box(90.5, 60.2, 61, 61), 64)
    edited = smile(crop.image)
    want = nv12_of(rgb_to_yuv(paste(frame, crop, edited), LIMITED_709)).int()
    got = (
        paste_back(
            nv12_of(yuv)[None].to(DEVICE),
            torch.from_numpy(crop.transform)[None],
            tensor_of(crop.image),
            tensor_of(edited),
            colour=LIMITED_709,
        )[0]
        .cpu()
        .int()
    )
    away = (got - want).abs()
    assert away.max() <= 8
    assert away.float().mean() < 0.3


def test_a_frame_with_a_pitch_is_read_in_place() -> None:
    frame, transform, crop, edited = random_case(24, 32, 48, similarity(0.9, 0.2, 2, -3))
    got = paste_back(frame[:, :, :40], transform, crop, edited)
    assert torch.equal(got, paste_back(frame[:, :, :40].contiguous(), transform, crop, edited))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": torch.zeros(1, 32, 40, 3)}, "paste_back: frame is torch.float32"),
        ({"transform": torch.zeros(1, 3, 3)}, "transform is"),
        ({"crop": torch.zeros(1, 3, 24, 20)}, "crop has shape"),
        ({"edited": torch.zeros(1, 3, 20, 20)}, "edited has shape"),
        ({"edited": torch.zeros(1, 3, 24, 24, dtype=torch.uint8)}, "edited is torch.uint8"),
        ({"crop": torch.zeros(1, 3, 8, 8), "edited": torch.zeros(1, 3, 8, 8)}, "sides of 8"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], message: str) -> None:
    frame, transform, crop, edited = random_case(24, 32, 40, similarity(0.9, 0, 0, 0))
    arguments = {"frame": frame, "transform": transform, "crop": crop, "edited": edited, **change}
    for name in ("frame", "crop", "edited"):
        arguments[name] = arguments[name].to(DEVICE)
    with pytest.raises(ValueError, match=message):
        paste_back(**arguments)
