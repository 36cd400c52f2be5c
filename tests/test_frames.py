"""Frames: RGB and luma on demand, rectangles painted over without touching the rest."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clips import read_corners, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.video_file import VideoFile


def smooth(width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 RGB [H, W, 3] without sharp edges, so that chroma subsampling costs little."""
    waves = np.random.default_rng(seed).uniform(0.02, 0.1, (3, 2))
    y, x = np.mgrid[:height, :width]
    return np.stack([128 + 90 * np.sin(a * x + b * y) for a, b in waves], axis=2).astype(np.uint8)


def decoded(width: int, height: int, seed: int = 0) -> Frame:
    """A frame as VideoFile gives it: YUV planes, no RGB yet."""
    image = smooth(width, height, seed)
    return Frame.of_yuv(colour.rgb_to_yuv(image, colour.Colour.default(width, height)), 40)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(int) - b)


@st.composite
def rectangles(draw) -> tuple[int, int, int, int, int, int]:
    """Width and height of a frame, and x, y, width, height of a rectangle in it."""
    width, height = draw(st.integers(8, 200)), draw(st.integers(8, 200))
    w, h = draw(st.integers(1, width)), draw(st.integers(1, height))
    return width, height, draw(st.integers(0, width - w)), draw(st.integers(0, height - h)), w, h


@settings(max_examples=15)
@given(rectangles())
def test_a_region_is_that_part_of_the_image(sizes):
    width, height, x, y, w, h = sizes
    whole = decoded(width, height).image
    region = decoded(width, height).region(x, y, w, h)
    assert region.shape == (h, w, 3)
    assert difference(region, whole[y : y + h, x : x + w]).max() <= 24, "chroma at the edges sees other neighbours"
    assert difference(region, smooth(width, height)[y : y + h, x : x + w]).mean() < 4


@settings(max_examples=15)
@given(rectangles())
def test_replace_paints_the_rectangle_and_nothing_else(sizes):
    width, height, x, y, w, h = sizes
    frame, patch = decoded(width, height), smooth(w, h, seed=1)
    painted = frame.replace(x, y, patch)
    outside = np.ones((height, width), bool)
    outside[y & ~1 : y + h + (y + h) % 2, x & ~1 : x + w + (x + w) % 2] = False
    assert (painted.luma == frame.luma)[outside].all()
    for new, old in zip(colour.planes(painted.yuv)[1:], colour.planes(frame.yuv)[1:], strict=True):
        shared = np.zeros(new.shape, bool)
        shared[y // 2 : -(-(y + h) // 2), x // 2 : -(-(x + w) // 2)] = True
        assert (new == old)[~shared].all()
    inner = painted.image[y : y + h, x : x + w][2:-2, 2:-2]
    if inner.size:
        assert difference(inner, patch[2:-2, 2:-2]).mean() < 4
    assert (painted.width, painted.height, painted.pts_ns) == (width, height, 40)


def test_putting_back_what_was_there_changes_next_to_nothing():
    frame = decoded(640, 480)
    again = frame.replace(101, 53, frame.region(101, 53, 301, 299))
    assert difference(again.luma, frame.luma).max() <= 1
    assert difference(again.luma, frame.luma).mean() < 0.01


def test_a_frame_of_rgb():
    image = smooth(31, 21)
    frame = Frame(image, 5)
    patch = np.full((4, 3, 3), 7, np.uint8)
    painted = frame.replace(2, 3, patch)
    assert frame.image is not image and (frame.image == image).all()
    assert (painted.region(2, 3, 3, 4) == 7).all() and (frame.region(2, 3, 3, 4) == image[3:7, 2:5]).all()
    assert frame.luma.shape == (21, 31)
    assert difference(Frame.of_yuv(frame.yuv, 0).image, image).mean() < 4
    assert painted.at(9).pts_ns == 9 and (painted.at(9).image == painted.image).all()


@pytest.mark.parametrize("frame", [decoded(32, 32), Frame(smooth(32, 32))], ids=["decoded", "rgb"])
def test_frames_cannot_be_written_to(frame: Frame):
    for array in (frame.luma, frame.image, frame.region(0, 0, 8, 8)):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


@pytest.mark.parametrize("rectangle", [(-1, 0, 4, 4), (0, -1, 4, 4), (30, 0, 4, 4), (0, 30, 4, 4), (0, 0, 0, 4)])
def test_rectangles_outside_are_named(rectangle: tuple[int, int, int, int]):
    with pytest.raises(ValueError, match="is not inside 32 x 32 pixels"):
        decoded(32, 32).region(*rectangle)


def test_an_image_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="uint8 RGB"):
        Frame(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("matrix", [colour.BT709, colour.SMPTE170M], ids=["BT.709", "BT.601"])
@pytest.mark.parametrize("span", [colour.LIMITED, colour.FULL], ids=["limited", "full"])
@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (180, 120, 90)])
def test_colours_follow_the_standards_formula(matrix: int, span: int, rgb: tuple[int, int, int]):
    kr, kb = {colour.BT709: (0.2126, 0.0722), colour.SMPTE170M: (0.299, 0.114)}[matrix]
    r, g, b = (c / 255 for c in rgb)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - luma) / (2 - 2 * kb), (r - luma) / (2 - 2 * kr)
    y_range, c_range, floor = (219, 224, 16) if span == colour.LIMITED else (255, 255, 0)
    expected = floor + y_range * luma, 128 + c_range * cb, 128 + c_range * cr
    tags = colour.Colour(matrix, matrix, matrix, span)
    yuv = colour.rgb_to_yuv(np.full((16, 16, 3), rgb, np.uint8), tags)
    for plane, value in zip(colour.planes(yuv), expected, strict=True):
        assert plane[4, 4] == pytest.approx(min(value, 255), abs=1)
    assert difference(Frame.of_yuv(yuv, 0).image, np.array(rgb)).max() <= 3


def test_untagged_pictures_follow_their_size():
    assert colour.Colour.of(av.VideoFrame(640, 480, "yuv420p")).matrix == colour.SMPTE170M
    assert colour.Colour.of(av.VideoFrame(1920, 1080, "yuv420p")).matrix == colour.BT709
    assert colour.Colour.of(av.VideoFrame(640, 480, "yuvj420p")).range == colour.FULL


def test_memory_outlives_the_file(tmp_path: Path):
    with VideoFile(write_clip(tmp_path / "a.mp4")) as video:
        frames = list(video)
    lumas = [frame.luma for frame in frames]
    images = [frame.image for frame in frames]
    del frames, video
    assert all(read_corners(image)[0] == "top left" for image in images)
    assert all((luma == lumas[0]).mean() > 0.9 for luma in lumas)
