"""warp_crop against its formula and against what the run path cuts with OpenCV, on a real frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flashlips_edge.face.crop import cut
from flashlips_edge.face.detect import Box
from flashlips_edge.media.colour import Colour, rgb_to_yuv, yuv_to_rgb
from kernels.frame_samples import FULL_601, LIMITED_709, nv12_of, real_frame
from kernels.testing import DEVICE, DTYPES, few
from kernels.warp_crop import reference
from kernels.warp_crop.kernel import warp_crop

HALF_LEVEL = {torch.float32: 1e-4, torch.float16: 0.07, torch.bfloat16: 0.51}  # what the type takes from 255 levels


def levels(image: Tensor) -> np.ndarray:
    """[1, 3, S, S] in [0, 1] -> [S, S, 3] in 0..255."""
    return image[0].permute(1, 2, 0).double().cpu().numpy() * 255


def similarity(scale: float, angle: float, x: float, y: float, size: int) -> Tensor:
    """[1, 2, 3]: (x, y) of the frame in the middle of the crop."""
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    move = (size - 1) / 2 - linear @ (x, y)
    return torch.tensor(np.hstack([linear, move[:, None]]))[None]


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(90.5, 60.2, 61, 61), 64),  # linear
        (Box(230, 150, 50, 50), 40),  # linear, over the border
        (Box(5, 5, 80, 80), 50),  # averaged, over the border
        (Box(10, 10, 120, 120), 30),  # averaged strongly
    ],
)
def test_it_cuts_what_the_run_path_cuts(box: Box, size: int) -> None:
    frame = real_frame()
    crop = cut(frame, box, size)
    got = levels(warp_crop(torch.tensor(frame)[None].to(DEVICE), torch.tensor(crop.transform)[None], size))
    away = np.abs(got - crop.image)
    assert away.mean() < 0.3  # OpenCV rounds positions to 1/32 of a pixel and, where it averages, levels in between
    assert away.max() <= 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("colour", [None, LIMITED_709, FULL_601], ids=["rgb", "709 limited", "601 full"])
def test_formula(colour: Colour | None, dtype: torch.dtype) -> None:
    frame = torch.randint(0, 256, (2, 36, 30) if colour else (2, 24, 30, 3), dtype=torch.uint8)
    transform = torch.cat([similarity(0.8, 0.3, 14, 11, 17), similarity(0.35, -0.2, 5, 20, 17)])
    got = warp_crop(frame.to(DEVICE), transform, 17, dtype, colour)
    want = reference.warp_crop(frame, transform, 17, colour)
    assert got.dtype == dtype
    away = (got.double().cpu() - want).abs() * 255
    assert (away > HALF_LEVEL[dtype]).double().mean() < 0.002  # halves may round either way
    assert away.max() <= 1 + HALF_LEVEL[dtype]


@few
@given(st.floats(0.15, 2.5), st.floats(-3, 3), st.floats(-5, 35), st.floats(-5, 29), st.integers(1, 20))
def test_any_similarity(scale: float, angle: float, x: float, y: float, size: int) -> None:
    frame = torch.randint(0, 256, (1, 24, 30, 3), dtype=torch.uint8)
    transform = similarity(scale, angle, x, y, size)
    away = (warp_crop(frame.to(DEVICE), transform, size).double().cpu() - reference.warp_crop(frame, transform, size)).abs() * 255
    assert away.max() <= 1.001
    assert away.mean() < 0.01


@pytest.mark.parametrize("colour", [LIMITED_709, FULL_601], ids=["709 limited", "601 full"])
def test_nv12_looks_like_its_rgb(colour: Colour) -> None:
    yuv = rgb_to_yuv(real_frame(), colour)
    crop = cut(yuv_to_rgb(yuv, colour), Box(90, 60, 70, 70), 64)
    got = levels(warp_crop(nv12_of(yuv)[None].to(DEVICE), torch.tensor(crop.transform)[None], 64, colour=colour))
    away = np.abs(got - crop.image)
    assert away.mean() < 1
    assert np.quantile(away, 0.99) <= 5


def test_a_frame_with_a_pitch_needs_no_copy() -> None:
    wide = torch.randint(0, 256, (1, 36, 64), dtype=torch.uint8).to(DEVICE)
    frame, transform = wide[:, :, :30], similarity(0.9, 0, 15, 12, 16)
    got = warp_crop(frame, transform, 16, colour=FULL_601)
    assert torch.equal(got, warp_crop(frame.contiguous(), transform, 16, colour=FULL_601))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": torch.zeros(1, 24, 30, 3)}, "frame is torch.float32"),
        ({"frame": torch.zeros(1, 36, 30, dtype=torch.uint8)}, "with its colour"),
        ({"frame": torch.zeros(1, 35, 30, dtype=torch.uint8), "colour": FULL_601}, "H and W even"),
        ({"frame": torch.zeros(1, 24, 30, 6, dtype=torch.uint8)[..., ::2]}, "strides"),
        ({"transform": torch.zeros(2, 2, 3)}, r"transform is .*wanted floating \(1, 2, 3\)"),
        ({"dtype": torch.uint8}, "dtype is torch.uint8"),
        ({"size": 0}, "size is 0"),
        ({"transform": similarity(0.3, 0, 900, 900, 16)}, "outside the frame of 30 x 24"),
        ({"frame": torch.zeros(1, 36, 30, dtype=torch.uint8), "colour": Colour(8, 1, 1, 1)}, "colour.matrix is 8"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], message: str) -> None:
    arguments = {"frame": torch.zeros(1, 24, 30, 3, dtype=torch.uint8), "transform": similarity(0.9, 0, 15, 12, 16), "size": 16, **change}
    arguments["frame"] = arguments["frame"].to(DEVICE)
    with pytest.raises(ValueError, match=message):
        warp_crop(**arguments)
