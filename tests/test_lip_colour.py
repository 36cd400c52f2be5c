"""Lips are found by their redness, and given one other colour in all frames of a clip."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.training.lip_colour import lips_in, other_lips

SKIN, LIPS, TEETH, NOSE, CHIN = (205, 165, 140), (176, 84, 92), (235, 228, 215), (205, 140, 125), (208, 148, 128)


def face(size: int, opening: float = 0.0, lips: tuple[int, int, int] = LIPS) -> np.ndarray:
    """A crop uint8 [S, S, 3]: skin, a reddish nose and chin, and lips that show teeth when they open."""
    unit, crop = size / 160, np.full((size, size, 3), SKIN, np.uint8)

    def ellipse(y: float, half_x: float, half_y: float, colour: tuple[int, int, int]) -> None:
        axes = (round(half_x * unit), round(half_y * unit))
        cv2.ellipse(crop, (size // 2, round(y * unit)), axes, 0, 0, 360, colour, -1, cv2.LINE_AA)

    ellipse(88, 12, 6, NOSE)
    ellipse(148, 14, 6, CHIN)
    ellipse(122, 22, 8 + 8 * opening, lips)
    if opening:
        ellipse(122, 14, 8 * opening, TEETH)
    return crop


@pytest.mark.parametrize("size", [160, 256])
@given(opening=st.floats(0.2, 1))
def test_lips_and_only_lips_are_found(size: int, opening: float) -> None:
    crop = face(size, opening)
    found = lips_in(crop)
    assert found is not None and 0 <= found.min() and found.max() <= 1
    inner = (crop == LIPS).all(-1) & (cv2.erode((crop == LIPS).all(-1).astype(np.uint8), np.ones((5, 5))) > 0)
    assert found[inner].min() > 0.7
    for colour in (SKIN, NOSE, CHIN):
        there = cv2.erode((crop == colour).all(-1).astype(np.uint8), np.ones((9, 9))) > 0
        assert found[there].max() < 0.05, colour


def test_lips_of_a_clip_change_to_one_colour_and_nothing_else_does() -> None:
    clip = np.stack([face(160, opening) for opening in (0.0, 0.3, 0.6, 1.0)])
    changed = other_lips(clip, np.random.default_rng(1))
    moved = np.abs(changed.astype(int) - clip).max(-1)
    assert moved[(clip == LIPS).all(-1)].mean() > 5
    assert moved[:, :100].max() <= 1 and moved[:, 142:].max() <= 1, "neither nose nor chin"
    colours = [changed[i, round(122 + 7 + 4 * opening), 80].astype(int) for i, opening in enumerate((0.0, 0.3, 0.6, 1.0))]
    assert np.ptp(colours, axis=0).max() < 25, "the same in every frame"
    assert not np.array_equal(other_lips(clip, np.random.default_rng(2)), changed)


def test_lips_that_are_hardly_redder_than_skin_are_left_alone() -> None:
    clip = np.stack([face(160, opening, lips=(200, 155, 135)) for opening in (0.0, 0.5, 1.0)])
    assert lips_in(clip[0]) is None
    assert other_lips(clip, np.random.default_rng(0)) is clip
