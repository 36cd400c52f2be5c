"""The crop is where the face is and stays there; pasting changes the mouth and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.errors import UserError
from flashlips_edge.face.crop import MOUTH, Crop, cut, paste, paste_patch
from flashlips_edge.face.detect import Box, HaarDetector, YuNetDetector
from flashlips_edge.face.one_euro import OneEuro
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.video_file import VideoFile

FRAME_NS = 40_000_000


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(40, 216, (height // 8 + 2, width // 8 + 2, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def tilt(frame: np.ndarray, centre: tuple[float, float], angle: float) -> np.ndarray:
    """The frame turned clockwise about a point, in radians."""
    matrix = cv2.getRotationMatrix2D(centre, -np.degrees(angle), 1.0)
    return cv2.warpAffine(frame, matrix, frame.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


class InTheMiddle:
    """A detector that finds a face of 120 px in the middle: of the frame, or of the part that is searched."""

    def __call__(self, image: np.ndarray) -> list[Box]:
        (height, width), size = image.shape[:2], 120.0 if image.shape[0] > 300 else 80.0
        return [Box(width / 2 - size / 2, height / 2 - size / 2, size, size)]


class Scripted:
    """A detector that gives the boxes of a script, in the searched picture's own coordinates."""

    def __init__(self, boxes: list[Box]) -> None:
        self.boxes = boxes

    def __call__(self, image: np.ndarray) -> list[Box]:
        return self.boxes


@given(x=st.floats(-60, 250), y=st.floats(-60, 180), width=st.floats(20, 300), angle=st.floats(-0.6, 0.6))
def test_an_unedited_crop_pasted_back_leaves_the_frame_as_it_was(x: float, y: float, width: float, angle: float) -> None:
    frame = noise(200, 270)
    crop = cut(frame, Box(x, y, width, width, angle), 96)
    assert np.abs(paste(frame, crop, crop.image).astype(int) - frame).max() <= 1


@pytest.mark.parametrize("width", [60.0, 128.0, 300.0], ids=["enlarged", "equal", "reduced"])
def test_the_crop_shows_the_square_around_the_box(width: float) -> None:
    y, x = np.mgrid[0:480, 0:640]
    frame = np.dstack([x * 255 / 640, y * 255 / 480, 0 * x]).astype(np.uint8)  # colours say where a pixel came from
    crop = cut(frame, Box(320 - width / 2, 240 - width / 2, width, width), 160).image
    half = 1.25 * width / 2
    crop = crop.astype(int)
    assert crop[80, 80, :2] == pytest.approx([127, 127], abs=2)
    assert crop[80, 0, 0] == pytest.approx((320 - half) * 255 / 640, abs=2)
    assert crop[159, 80, 1] == pytest.approx((240 + half) * 255 / 480, abs=2)


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.5])
def test_only_the_mouth_changes_and_its_border_shows_no_seam(angle: float) -> None:
    frame = noise(360, 480)
    crop = cut(frame, Box(140, 80, 200, 200, angle), 160)
    edited = np.clip(crop.image.astype(np.float32) + 40, 0, 255)
    change = np.abs(paste(frame, crop, edited).astype(int) - frame).max(2)
    left, top, patch = paste_patch(frame, crop, edited)
    outside = change.copy()
    outside[top : top + patch.shape[0], left : left + patch.shape[1]] = 0
    assert outside.max() == 0
    assert change.max() >= 30
    border = np.concatenate([change[top], change[top + patch.shape[0] - 1], change[:, left], change[:, left + patch.shape[1] - 1]])
    assert border.max() <= 2
    if angle:
        return
    forehead = int(80 + 200 * (0.5 - 0.625 + 1.25 * (MOUTH.centre_y - MOUTH.radius_y)))
    assert change[:forehead].max() == 0


@pytest.mark.parametrize("width", [60.0, 128.0, 300.0], ids=["enlarged", "equal", "reduced"])
def test_a_turned_box_shows_a_tilted_face_upright(width: float) -> None:
    frame = noise(480, 640)
    tilted = tilt(frame, (320, 240), 0.3)
    upright = cut(frame, Box(320 - width / 2, 240 - width / 2, width, width), 160).image.astype(int)
    found = cut(tilted, Box(320 - width / 2, 240 - width / 2, width, width, 0.3), 160).image
    assert (
        np.abs(found - upright).mean()
        < 3
        < np.abs(cut(tilted, Box(320 - width / 2, 240 - width / 2, width, width), 160).image - upright).mean()
    )


def test_fine_detail_stays_where_nothing_changed() -> None:
    sharp = np.random.default_rng(0).integers(0, 255, (500, 500, 3)).astype(np.uint8)  # finer than a 160 px crop can show
    crop = cut(sharp, Box(50, 50, 400, 400), 160)
    edited = crop.image.astype(np.float32)
    edited[110:125, 60:100] = 255
    result = paste(sharp, crop, edited).astype(int)
    cheek = (slice(330, 360), slice(120, 150))
    assert np.abs(result[cheek] - sharp[cheek]).max() <= 2


def test_a_frame_without_the_mouth_in_it_gives_an_empty_patch() -> None:
    frame = noise(100, 100)
    crop = Crop(np.zeros((64, 64, 3), np.uint8), np.array([[1, 0, 500], [0, 1, 500]], np.float32))
    assert paste_patch(frame, crop, crop.image)[2].size == 0


def test_the_box_of_a_still_face_does_not_shake() -> None:
    random = np.random.default_rng(1)
    frame = noise(360, 480)
    boxes = []

    class Shaky:
        def __call__(self, image: np.ndarray) -> list[Box]:
            centre = np.array(image.shape[1::-1]) / 2 if image.shape[0] < 300 else np.array([240, 180])
            size = 80 * random.normal(1, 0.03) if image.shape[0] < 300 else 120 * random.normal(1, 0.03)
            x, y = centre + random.normal(0, 0.03 * size, 2) - size / 2
            return [Box(x, y, size, size)]

    tracker = FaceTracker(Shaky())
    for i in range(75):
        box = tracker.update(frame, i * FRAME_NS)
        assert box is not None
        boxes.append(box)
    assert np.ptp(np.array(boxes), axis=0)[:4].max() < 0.5, "pixels, of a detector that shakes by 4"


def test_a_box_that_was_wrong_at_first_goes_to_where_the_face_is_found() -> None:
    class WrongAtFirst:
        asked = 0

        def __call__(self, image: np.ndarray) -> list[Box]:
            self.asked += 1
            if self.asked == 1:
                return [Box(220, 100, 120, 120)]
            held, size = (box.centre if box else (280, 160)), image.shape[0] / 2  # the part searched is two face widths wide
            return [Box(size + (250 - held[0]) * size / 120 - size / 2, size + (170 - held[1]) * size / 120 - size / 2, size, size)]

    tracker, box = FaceTracker(WrongAtFirst()), None
    for i in range(100):
        box = tracker.update(noise(360, 480), i * FRAME_NS)
    assert box is not None and box.centre == pytest.approx((250, 170), abs=0.13 * 120)


def test_a_face_that_comes_near_and_goes_back_has_its_size_again() -> None:
    frame, detector = noise(360, 480), Scripted([Box(180, 120, 120, 120)])
    tracker = FaceTracker(detector)
    for i in range(24):  # for less than a second without a detection
        growth = 1 + 0.2 * np.sin(np.pi * i / 24)
        matrix = cv2.getRotationMatrix2D((240, 180), 0.0, growth)
        box = tracker.update(cv2.warpAffine(frame, matrix, (480, 360), borderMode=cv2.BORDER_REPLICATE), i * FRAME_NS)
        detector.boxes = []
        assert box is not None and box.width == pytest.approx(120 * growth, rel=0.06), "the filter lags a little"


def test_a_head_that_tilts_is_followed_and_comes_back() -> None:
    frame, tracker = noise(360, 480), FaceTracker(InTheMiddle())
    for i in range(150):
        angle = 0.35 * np.sin(i / 12)
        box = tracker.update(tilt(frame, (240, 180), angle), i * FRAME_NS)
        assert box is not None
        assert box.angle == pytest.approx(angle, abs=0.12), "the filter lags a little"
        assert box.centre == pytest.approx((240, 180), abs=3)
    for i in range(150, 200):
        box = tracker.update(frame, i * FRAME_NS)
    assert box is not None and box.angle == pytest.approx(0, abs=0.01)


def test_the_tilt_of_a_still_face_does_not_wander() -> None:
    random, frame, tracker = np.random.default_rng(0), noise(360, 480), FaceTracker(InTheMiddle())
    angles = []
    for i in range(500):
        noisy = np.clip(frame + random.normal(0, 6, frame.shape), 0, 255).astype(np.uint8)
        box = tracker.update(noisy, i * FRAME_NS)
        assert box is not None
        angles.append(box.angle)
    assert np.abs(angles).max() < 0.03 and np.abs(np.diff(angles)).mean() < 0.001


def test_the_largest_face_is_taken_and_kept_when_a_larger_one_appears() -> None:
    frame = noise(360, 640)
    detector = Scripted([Box(60, 100, 140, 140), Box(400, 100, 100, 100)])
    tracker = FaceTracker(detector)
    first = tracker.update(frame, 0)
    assert first is not None and first.centre[0] == pytest.approx(130, abs=5)
    detector.boxes = [Box(380, 60, 240, 240)]
    for i in range(1, 20):
        box = tracker.update(frame, i * FRAME_NS)
        assert box is None or box.centre[0] < 250


def test_a_face_that_is_gone_is_lost_within_a_second_and_found_again() -> None:
    frame = noise(360, 480)
    detector = Scripted([Box(150, 100, 120, 120)])
    tracker = FaceTracker(detector)
    assert tracker.update(frame, 0) is not None
    detector.boxes = []
    boxes = [tracker.update(frame, i * FRAME_NS) for i in range(1, 40)]
    assert boxes[-1] is None
    detector.boxes = [Box(250, 100, 120, 120)]
    boxes = [tracker.update(frame, i * FRAME_NS) for i in range(40, 50)]
    assert boxes[-1] is not None and boxes[-1].centre[0] == pytest.approx(310, abs=10)


def test_no_face_is_no_box() -> None:
    assert FaceTracker(HaarDetector()).update(np.full((240, 320, 3), 90, np.uint8), 0) is None


def test_the_crops_of_the_tall_clip_stay_upright(data_path: Callable[[str], Path]) -> None:
    """The woman tilts her head by 30 degrees in all; eyes are found by OpenCV's cascade."""
    path = data_path("test/video/latentsync_demo1.mp4")
    tracker, eyes = FaceTracker(HaarDetector()), cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_eye.xml")
    tilts: dict[bool, list[float]] = {True: [], False: []}
    with VideoFile(path) as video:
        for number, frame in enumerate(video):
            box = tracker.update(frame.luma, frame.pts_ns)
            assert box is not None
            for followed, turned in () if number % 5 else ((True, box), (False, box._replace(angle=0.0))):
                crop = cut(frame.image, turned, 256).image[64:144]
                grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
                found = sorted(np.reshape(eyes.detectMultiScale(grey, 1.05, 6, minSize=(24, 24)), (-1, 4)).tolist())
                if len(found) == 2 and found[1][0] - found[0][0] > 50:
                    (ax, ay, aw, ah), (bx, by, bw, bh) = found
                    tilts[followed].append(np.arctan2(by + bh / 2 - ay - ah / 2, bx + bw / 2 - ax - aw / 2))
    assert min(map(len, tilts.values())) > 12
    assert np.std(tilts[True]) < 0.6 * np.std(tilts[False])


def test_the_jacket_of_the_tall_clip_is_never_followed(data_path: Callable[[str], Path]) -> None:
    path = data_path("test/video/latentsync_demo1.mp4")
    tracker = FaceTracker(HaarDetector())
    centres = []
    with VideoFile(path) as video:
        for i, frame in enumerate(video):
            box = tracker.update(frame.luma, frame.pts_ns)
            assert box is not None, f"no face in frame {i}"
            centres.append(box.centre)
            if i == 149:
                break
    low, high = np.min(centres, 0), np.max(centres, 0)
    assert low[0] > 380 and high[0] < 720 and low[1] > 600 and high[1] < 900  # the jacket's boxes lie below 1400


def test_one_euro_is_still_when_still_and_follows_when_moving() -> None:
    random = np.random.default_rng(0)
    still, moving = OneEuro(), OneEuro()
    held = [still(random.normal(0, 1, 1), 0.04)[0] for _ in range(200)]
    assert np.std(held[50:]) < 0.5
    followed = [moving(np.array([10.0 * i]), 0.04)[0] for i in range(100)]
    assert followed[-1] == pytest.approx(990, abs=60)


def test_a_detector_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        YuNetDetector(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(UserError, match="not a YuNet model"):
        YuNetDetector(tmp_path / "text.onnx")


def test_another_network_is_no_detector(repo: Path) -> None:
    with pytest.raises(UserError, match=r"latent_encoder\.onnx: not a YuNet model"):
        YuNetDetector(repo / "flashlips_edge" / "bundles" / "nano" / "latent_encoder.onnx")
