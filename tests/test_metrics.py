"""What the evaluation measures with, against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import landmarks, measures, metrics
from flashlips_edge.evaluation.judges import Judges
from flashlips_edge.evaluation.lpips import Lpips
from flashlips_edge.evaluation.marks import reached
from flashlips_edge.evaluation.recordings import Recording, partners, recorded_at
from flashlips_edge.evaluation.systems import random_lips
from flashlips_edge.evaluation.takes import Result, Speech

NO_JUDGES = Judges(None, None, None, None, {})


def test_psnr_of_a_constant_error():
    truth = np.full((8, 8, 3), 100, np.uint8)
    assert metrics.psnr(truth + 10, truth) == pytest.approx(28.1308, abs=1e-3)  # 20 log10(255 / 10)
    assert metrics.psnr(truth, truth) == float("inf")


def test_psnr_within_a_weight_sees_only_that_region():
    truth = np.full((4, 4, 3), 100, np.uint8)
    image = truth.copy()
    image[0] = 110
    top = np.zeros((4, 4))
    top[0] = 1
    assert metrics.psnr(image, truth, top) == pytest.approx(28.1308, abs=1e-3)
    assert metrics.psnr(image, truth, 1 - top) == float("inf")


def test_the_mouth_box_is_the_one_of_the_data_notes():
    crop = np.arange(160 * 160).reshape(160, 160)
    box = metrics.mouth_box(crop)
    assert box.shape == (48, 70)
    assert box[0, 0] == 92 * 160 + 45
    assert metrics.mouth_box(np.zeros((192, 192, 3))).shape[:2] == (58, 84)


def test_correlation():
    track = np.array([1.0, 2.0, 4.0, 3.0])
    assert metrics.correlation(track, 5 - 2 * track) == pytest.approx(-1)
    assert metrics.correlation([0, 1, 0, 1], [0, 0, 1, 1]) == pytest.approx(0)
    assert metrics.correlation(track, np.ones(4)) == 0


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_the_lag_of_a_shifted_track_is_found(lag):
    sound = np.random.default_rng(0).normal(size=80)
    assert metrics.best_lag(sound[10 - lag : 70 - lag], sound[10:70]) == lag


def test_ssim_of_flat_pictures_compares_their_levels():
    grey = np.full((16, 16, 3), 100, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert metrics.ssim(grey, grey) == pytest.approx(1)
    assert metrics.ssim(grey + 50, grey) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_ssim_falls_with_lost_structure_more_than_with_brightness():
    picture = np.random.default_rng(0).integers(60, 180, (32, 32, 3)).astype(np.uint8)
    assert metrics.ssim(np.full_like(picture, 120), picture) < 0.2 < 0.9 < metrics.ssim(picture + 10, picture)


def test_detail_is_what_a_blur_takes_away():
    noisy = np.random.default_rng(0).integers(0, 256, (48, 70, 3), np.uint8)
    assert metrics.detail(np.full((48, 70, 3), 90, np.uint8)) < 1e-4
    assert 0 < metrics.detail(cv2.GaussianBlur(noisy, (0, 0), 1.5)) < 0.3 * metrics.detail(noisy)


def test_jitter_sees_what_smooth_motion_leaves_out():
    assert metrics.jitter(np.arange(9)) == 0
    assert metrics.jitter(np.array([[0.0], [1], [0], [1], [0]])) == 2


def test_a_leak_is_what_the_speech_does_not_explain():
    draw = np.random.default_rng(2)
    speech, source = draw.normal(size=(2, 4000))
    assert metrics.partial_correlation(source, source, speech) == pytest.approx(1)
    assert abs(metrics.partial_correlation(speech + draw.normal(size=4000), source, speech)) < 0.05
    assert metrics.partial_correlation(speech + source, source, speech) == pytest.approx(1)  # all that the speech leaves is the source
    assert metrics.partial_correlation(speech, source, speech) == 0


def test_order_needs_every_step():
    assert metrics.in_order(np.array([0.12, 0.14, 0.2]))
    assert not metrics.in_order(np.array([0.12, 0.11, 0.2]))


def points(openings: list[float] | np.ndarray) -> np.ndarray:
    """Landmarks [T, 66, 2] of an upright face, 100 px between the outer eye corners, whose inner lips are this far apart."""
    face = np.random.default_rng(5).uniform(-20, 20, (landmarks.N_POINTS, 2)) + (150, 200)
    face[[landmarks.OUTER_EYES[0], landmarks.OUTER_EYES[1]]] = (100, 100), (200, 100)
    result = np.repeat(face[None], len(openings), axis=0)
    result[:, landmarks.UPPER_LIP] = (150, 200)
    result[:, landmarks.LOWER_LIP, 0] = 150
    result[:, landmarks.LOWER_LIP, 1] = 200 + 100 * np.asarray(openings)
    return result.astype(np.float32)


@given(angle=st.floats(-0.6, 0.6), size=st.floats(0.2, 5), shift=st.tuples(st.floats(-300, 300), st.floats(-300, 300)))
def test_lip_points_do_not_depend_on_where_the_head_is(angle, size, shift):
    face = points([0.1, 0.3])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(landmarks.lips_of(size * face @ turn.T + shift), landmarks.lips_of(face), atol=1e-4)


def recording(openings: np.ndarray, name: str = "set/clip") -> Recording:
    """A clip at 25 frames a second with these openings; its pictures are noise."""
    crops = np.random.default_rng(len(openings)).integers(0, 255, (len(openings), 64, 64, 3)).astype(np.uint8)
    count = np.arange(len(openings))
    return Recording(Path(name), count, count * 40_000_000, [], crops, points(openings))


def result_of(clip: Recording, openings: list[float] | np.ndarray) -> Result:
    """A result with these openings, its pictures the clip's own."""
    positions = np.arange(len(openings))
    return Result(clip, positions, clip.crops[positions], points(openings))


def speech_of(clip: Recording, openings: np.ndarray) -> Speech:
    said = recording(openings)
    return Speech(np.zeros(len(openings) * 640, np.float32), openings, landmarks.lips_of(points(openings)) - said.lips_mean)


def test_a_result_that_follows_the_sound_and_not_the_avatar():
    draw = np.random.default_rng(1)
    truth, own = draw.normal(0.2, 0.05, (2, 100))
    clip = recording(own)
    found = measures.lips(result_of(clip, 0.1 + truth / 2), speech_of(clip, truth), NO_JUDGES)
    assert found["correlation"] == pytest.approx(1) and found["range"] == pytest.approx(0.5) and found["lag_frames"] == 0
    assert found["jitter"] == found["detail"] == pytest.approx(1) and found["leak"] == pytest.approx(0, abs=1e-3)


def said_in_pieces(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise that comes and goes for a second each, float32 [640 count], and the steps in which it is there."""
    there = np.arange(count) // 25 % 2 == 1
    noise = np.random.default_rng(0).normal(0, 0.1, (count, 640)) * (1 + 0.5 * np.sin(np.arange(count)))[:, None]
    return (noise * np.where(there, 1, 1e-3)[:, None]).astype(np.float32).ravel(), there


def test_what_is_done_in_pauses_does_not_count_where_only_the_voice_does():
    truth = np.random.default_rng(1).normal(0.2, 0.05, 200)
    sound, there = said_in_pieces(200)
    speech = replace(speech_of(recording(truth), truth), sound=sound)
    clip = recording(np.random.default_rng(2).normal(0.2, 0.05, 200))
    assert (speech.heard(clip.pts_ns) != there).mean() < 0.1
    closing = np.where(speech.heard(clip.pts_ns), truth, np.percentile(truth, 5))
    found = measures.lips(result_of(clip, closing), speech, NO_JUDGES)
    assert found["heard_correlation"] == pytest.approx(1)
    assert 0.2 < found["correlation"] < 0.8
    assert measures.bound(speech, clip)["correlation"] == pytest.approx(found["correlation"], abs=1e-4)


def test_a_copy_of_its_source_is_perfect_under_its_own_speech_and_leaks_under_another():
    truth, own = np.random.default_rng(1).normal(0.2, 0.05, (2, 100))
    clip = recording(own)
    same = measures.lips(result_of(clip, own), speech_of(clip, own), NO_JUDGES)
    assert same["landmark_distance"] == pytest.approx(0, abs=1e-6) and "leak" not in same
    other = measures.lips(result_of(clip, own), speech_of(clip, truth), NO_JUDGES)
    assert other["leak"] == pytest.approx(1) and abs(other["correlation"]) < 0.3
    assert other["landmark_distance"] > 0.001


def test_without_landmarks_the_pictures_are_still_measured():
    clip = recording(np.full(30, 0.2))
    blind = replace(result_of(clip, clip.openings), clip=replace(clip, points=None), points=None)
    assert set(measures.lips(blind, Speech(np.zeros(30 * 640, np.float32), None, None), NO_JUDGES)) == {"jitter", "detail"}
    assert set(measures.picture(blind, NO_JUDGES)) == {"mouth_db", "mouth_ssim", "face_db", "face_ssim"}


def test_silence_is_judged_by_the_mouth_in_speech_once_it_had_time_to_close():
    clip = recording(np.concatenate([np.full(50, 0.12), np.full(50, 0.22)]))
    silent = result_of(clip, [0.3] * 5 + [0.13] * 5)  # open for 200 ms, then nearly closed
    found = measures.silence(silent, result_of(clip, [0.12, 0.17]))
    assert found == {"share": pytest.approx(0.2, abs=1e-4), "worst": pytest.approx(0.2, abs=1e-4)}
    smeared = measures.silence(result_of(clip, [0.1] * 10), result_of(clip, [0.12, 0.17]))
    assert smeared["share"] == pytest.approx(-0.4, abs=1e-3)
    name = "silence.zeros.share.video"
    assert not reached(name, {name: smeared["share"]}) and reached(name, {name: -0.05})


def test_what_goes_with_its_source_and_what_goes_against_it_leak_alike():
    way = np.random.default_rng(3).uniform(0.1, 0.3, 60)
    clip, speech = recording(way), speech_of(recording(way), np.roll(way, 20))
    found = [measures.lips(result_of(clip, openings), speech, NO_JUDGES)["leak"] for openings in (way, 0.4 - way)]
    assert min(found) > 0.9


def test_what_was_recorded_goes_round_past_its_end():
    clip = recording(np.linspace(0.1, 0.2, 50))
    times = np.array([0, 20_000_000, 49 * 40_000_000, clip.duration_ns + 40_000_000])
    found = recorded_at(clip, clip.openings, times)
    np.testing.assert_allclose(found, clip.openings[[0, 0, 49, 1]] + [0, np.diff(clip.openings)[0] / 2, 0, 0], atol=1e-6)


def test_a_clip_is_crossed_with_the_same_speaker_where_there_is_one():
    clips = [recording(np.full(30, 0.1), f"unseen/{name}.mpg") for name in ("s31_a", "s31_b", "other")]
    found = [(clip.path.stem, partner.path.stem) for clip, partner in partners(clips)]
    assert found == [("s31_a", "s31_b"), ("s31_b", "s31_a"), ("other", "s31_a")]
    assert [pair[1].path.stem for pair in partners(clips[2:])] == ["other"]


def test_random_lips_have_the_spread_of_the_face_and_keep_moving():
    draw = np.random.default_rng(0)
    lips = draw.normal(size=(200, 12)) @ draw.normal(size=(12, 12)) + 3
    found = random_lips(lips, 20_000, seed=4)
    np.testing.assert_allclose(found.mean(0), lips.mean(0), atol=0.3)
    np.testing.assert_allclose(np.cov(found.T), np.cov(lips.T), atol=0.8)
    assert np.corrcoef(found[:-1, 0], found[1:, 0])[0, 1] == pytest.approx(0.6, abs=0.05)
    np.testing.assert_array_equal(found[:50], random_lips(lips, 20_000, seed=4)[:50])


def test_lpips_with_the_users_file(tmp_path):
    pytest.importorskip("torchmetrics")
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    torch.manual_seed(0)
    weights = {f"features.{i}.weight": 0.05 * torch.randn(shape) for i, shape in shapes.items()}
    torch.save(weights | {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}, tmp_path / "alexnet.pth")
    lpips = Lpips(tmp_path / "alexnet.pth")
    truth = np.random.default_rng(0).integers(40, 200, (3, 64, 64, 3)).astype(np.uint8)
    assert lpips(truth, truth) == 0 < lpips(truth + 5, truth) < lpips(truth[::-1], truth)
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="--lpips .*other.pth"):
        Lpips(tmp_path / "other.pth")
