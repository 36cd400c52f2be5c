"""No training clip shows two people, however softly a video goes from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_clip
from faces import HEIGHT, WIDTH, face

from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.training.dissolves import Dissolves
from flashlips_edge.training.pieces import pieces
from flashlips_edge.training.synthetic_head import Identity, Lips, Pose, render

FRAME_NS = 40_000_000


def spans(path: Path) -> list[tuple[int, int]]:
    """First and last frame of each clip."""
    with VideoFile(path) as video:
        return [(round(piece.pts_ns[0] / FRAME_NS), round(piece.pts_ns[-1] / FRAME_NS)) for piece in pieces(video, 64)]


def write(path: Path, images: list[np.ndarray]) -> Path:
    return write_clip(path, size=(WIDTH, HEIGHT), images=images, options={"crf": "12"})


def dissolve(before: list[np.ndarray], after: list[np.ndarray], length: int) -> list[np.ndarray]:
    """The last ``length`` pictures of one video turn into the first of the other."""
    shares = np.arange(1, length + 1) / (length + 1)
    mixed = [np.round((1 - s) * a + s * b).astype(np.uint8) for s, a, b in zip(shares, before[-length:], after)]
    return [*before[:-length], *mixed, *after[length:]]


def assert_parted(found: list[tuple[int, int]], start: int, end: int) -> None:
    """Two clips, one before the dissolve and one after; a frame of which the other person has a twentieth is none of it."""
    (first, last), (again, final) = found
    assert first == 0 and last <= start and end - 1 <= again and final >= again + 24, found


@pytest.mark.parametrize("length", [12, 25])
def test_a_dissolve_is_in_no_clip(length: int, tmp_path: Path) -> None:
    images = dissolve([face()] * 75, [face(11)] * 75, length)
    assert_parted(spans(write(tmp_path / "soft.mp4", images)), 75 - length, 75)


@pytest.mark.parametrize("length", [12, 25])
def test_a_dissolve_between_people_who_talk_is_in_no_clip(length: int, data_path: Callable[[str], Path], tmp_path: Path) -> None:
    people = []
    for name in ("train/grid_s1/bbaf2n.mp4", "train/grid_multi/s26_bgbsza.mpg"):
        with VideoFile(data_path(name)) as video:
            people.append([cv2.resize(frame.image, (WIDTH, HEIGHT)) for frame in islice(video, 70)])
    assert_parted(spans(write(tmp_path / "soft.mp4", dissolve(*people, length))), 70 - length, 70)


def test_a_dissolve_where_a_long_clip_ends_is_in_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashlips_edge.training.pieces.MAX_NS", 40 * FRAME_NS)
    images = dissolve([face()] * 52, [face(11)] * 75, 25)  # from 27 to 52
    found = spans(write(tmp_path / "soft.mp4", images))
    assert found and not any(first < 51 and last > 27 for first, last in found), found


def test_a_head_that_turns_and_a_light_that_goes_on_are_one_clip(tmp_path: Path) -> None:
    yaws = 0.35 * np.sin(np.arange(75) / 75 * 4 * np.pi)
    head = [render(Identity.from_seed(3), Pose(yaw=float(yaw)), Lips(jaw=0.3), (HEIGHT, WIDTH)) for yaw in yaws]
    lit = [np.uint8(image * min(1.0, 0.5 + i / 50)) for i, image in enumerate(head)]
    assert spans(write(tmp_path / "turned.mp4", lit)) == [(0, 74)]


def test_a_face_that_fades_to_black_and_back_ends_a_clip(tmp_path: Path) -> None:
    """The face is looked for in black for a while, where all pictures are one."""
    light = np.r_[np.ones(40), np.linspace(1, 0, 15), np.zeros(40), np.linspace(0, 1, 15), np.ones(75)]
    found = spans(write(tmp_path / "faded.mp4", [np.uint8(face() * share) for share in light]))
    assert len(found) == 2 and found[0][1] <= 55 and found[1][0] >= 95, found


def test_black_is_no_dissolve() -> None:
    dissolves = Dissolves()
    assert not any(dissolves.update(np.zeros((64, 64, 3), np.uint8), i * FRAME_NS) for i in range(60))
