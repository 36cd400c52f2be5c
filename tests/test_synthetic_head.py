"""The synthetic head: true lips, people from seeds, speech in time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy")

from flashlips_edge.errors import UserError
from flashlips_edge.training.synthetic_head import Identity, Lips, Pose, idle_pose_track, lips_track, opening, render, speak
from flashlips_edge.training.synthetic_head.__main__ import run

SIZE = (128, 128)
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def cavity_rows(image: np.ndarray) -> int:
    """Rows of the middle column's mouth part that changed most against closed lips: a coarse look at the opening."""
    return int(np.count_nonzero(image.max(axis=1) > 40))


@given(
    seed=st.integers(0, 500),
    low=st.floats(0, 0.9),
    step=st.floats(0.05, 0.5),
    width=st.floats(-1, 1),
    rounded=st.floats(0, 1),
    yaw=st.floats(-0.4, 0.4),
    pitch=st.floats(-0.3, 0.3),
)
@settings(max_examples=40, deadline=None)
def test_opening_grows_with_the_jaw(seed: int, low: float, step: float, width: float, rounded: float, yaw: float, pitch: float) -> None:
    identity, pose = Identity.from_seed(seed), Pose(yaw=yaw, pitch=pitch)
    first = opening(identity, pose, Lips(jaw=low, width=width, round=rounded), SIZE)
    second = opening(identity, pose, Lips(jaw=min(1.0, low + step), width=width, round=rounded), SIZE)
    assert second > first >= 0
    assert opening(identity, pose, Lips(jaw=low, width=width, round=rounded, press=1), SIZE) == 0


def test_the_picture_opens_as_the_truth_says() -> None:
    identity, pose = Identity.from_seed(3), Pose()
    closed = render(identity, pose, Lips(upper_teeth=0), SIZE).astype(int)
    seen = []
    for jaw in (0.2, 0.5, 0.9):
        picture = render(identity, pose, Lips(jaw=jaw, upper_teeth=0, lower_teeth=0), SIZE).astype(int)
        middle = slice(SIZE[1] // 2 - 1, SIZE[1] // 2 + 2)
        seen.append(cavity_rows(np.abs(picture - closed)[:, middle].max(axis=2)))
    assert seen[0] < seen[1] < seen[2]


@pytest.mark.parametrize("pose", [Pose(), Pose(yaw=0.3, pitch=-0.15, roll=0.1, x=0.05, scale=0.9, blink=0.4)], ids=["front", "turned"])
@pytest.mark.parametrize("seed", [2, 16])
def test_lips_change_only_the_lower_face(seed: int, pose: Pose) -> None:
    identity = Identity.from_seed(seed)
    closed = render(identity, pose, Lips(), SIZE)
    spoken = render(identity, pose, Lips(jaw=0.9, width=0.8, upper_teeth=1, lower_teeth=1, tongue=0.7), SIZE)
    rows = np.flatnonzero((closed != spoken).any(axis=(1, 2)))
    assert rows.min() > 0.5 * SIZE[0]  # below the eyes and the nose's bridge
    assert np.array_equal(closed[: SIZE[0] // 2], spoken[: SIZE[0] // 2])
    side = (closed != spoken).any(axis=(0, 2))
    assert not side[:8].any() and not side[-8:].any()  # hair, backdrop and shoulders beside the face stay


def test_a_seed_is_a_person() -> None:
    pose, lips = Pose(yaw=0.1), Lips(jaw=0.3)
    first = render(Identity.from_seed(4), pose, lips, SIZE)
    assert Identity.from_seed(4) == Identity.from_seed(4)
    assert np.array_equal(first, render(replace(Identity.from_seed(4)), pose, lips, SIZE))
    for other in (5, 6, 7):
        assert np.abs(first.astype(int) - render(Identity.from_seed(other), pose, lips, SIZE)).mean() > 5


def test_the_same_lips_look_alike_at_other_sizes() -> None:
    identity = Identity.from_seed(9)
    small, large = (render(identity, Pose(), Lips(jaw=0.4), (s, s)) for s in (96, 192))
    again = cv2.resize(large, (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - again).mean() < 6


def test_the_cascade_finds_the_face_where_it_is() -> None:
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    found, sides = 0, []
    seeds = range(12)
    for seed in seeds:
        picture = render(Identity.from_seed(seed), Pose(scale=0.55, yaw=0.1 * np.sin(seed)), Lips(jaw=0.3 * (seed % 3)), (240, 240))
        boxes = cascade.detectMultiScale(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 1.1, 5, minSize=(60, 60))
        for x, y, w, h in boxes:
            if abs(x + w / 2 - 120) < 25 and abs(y + h / 2 - 120) < 25:
                found += 1
                sides.append(1.25 * w)
                break
    assert found >= 0.9 * len(seeds)
    assert abs(np.mean(sides) / (0.55 * 240) - 1) < 0.12  # scale 1 is the Haar box times 1.25


def test_idling_is_smooth_and_blinks() -> None:
    track = idle_pose_track(3, 250, 25.0)
    assert len(track) == 250 and track == idle_pose_track(3, 250, 25.0) and track != idle_pose_track(4, 250, 25.0)
    for name, step in (("yaw", 0.03), ("pitch", 0.02), ("roll", 0.02), ("x", 0.005), ("y", 0.005)):
        assert np.abs(np.diff([getattr(pose, name) for pose in track])).max() < step
    assert max(pose.blink for pose in track) == 1 and np.mean([pose.blink > 0 for pose in track]) < 0.3


@needs_espeak
def test_speech_has_its_phonemes_in_time() -> None:
    waveform, phonemes = speak("My baby puts five shoes by the moon.")
    assert waveform.dtype == np.float32 and 1.5 < waveform.size / 16000 < 5 and 0.05 < np.abs(waveform).max() <= 1
    assert phonemes[0].start_s == 0 and phonemes[-1].end_s == pytest.approx(waveform.size / 16000)
    assert all(a.end_s == b.start_s for a, b in pairwise(phonemes))
    vowel = next(p for p in phonemes if "uː" in p.phoneme)
    loud = np.sqrt(np.mean(waveform[int(vowel.start_s * 16000) : int(vowel.end_s * 16000)] ** 2))
    assert loud > 0.03
    again, _ = speak("My baby puts five shoes by the moon.")
    assert abs(again.size - waveform.size) < 160  # espeak-ng's pitch cycles carry over from sentence to sentence


@needs_espeak
@pytest.mark.parametrize("rate_hz", [25.0, 30.0, 12.5])
def test_lips_close_where_they_must(rate_hz: float) -> None:
    identity = Identity.from_seed(0)
    waveform, phonemes = speak("Papa may be home. ... A mob!")
    track = lips_track(phonemes, rate_hz)
    assert len(track) == int(np.ceil(waveform.size / 16000 * rate_hz))
    gap = np.array([opening(identity, Pose(), lips, SIZE) for lips in track])
    middle = (np.arange(len(track)) + 0.5) / rate_hz
    for phoneme, start, end in phonemes:
        if phoneme in ("p", "b", "m"):
            assert gap[np.argmin(np.abs(middle - (start + end) / 2))] < 0.005
        if phoneme == "_" and end - start > 0.3:
            assert gap[(middle > start + 0.15) & (middle < end - 0.12)].max() < 0.01
    assert gap.max() > 0.05


def test_rounded_vowels_round_and_spread_vowels_spread() -> None:
    spread, rounded, tucked = (lips_track([("_", 0, 0.1), (p, 0.1, 0.4), ("_", 0.4, 0.5)])[6] for p in ("iː", "uː", "f"))
    assert spread.width > 0.4 > 0 > rounded.width and rounded.round > 0.6 > 0.1 > spread.round
    assert tucked.tuck == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Identity.from_seed(-1), "seed is -1"),
        (lambda: Identity.from_seed(1.5), "seed is 1.5"),
        (lambda: Lips(jaw=2), "lips jaw is 2; it must be a number from 0 to 1"),
        (lambda: Lips(width=float("nan")), "lips width is nan; it must be a number from -1 to 1"),
        (lambda: Pose(yaw=3), "pose yaw is 3"),
        (lambda: render(Identity.from_seed(0), Pose(), Lips(), (0, 10)), "size is (0, 10)"),
        (lambda: idle_pose_track(0, 0), "n_frames is 0"),
        (lambda: lips_track([]), "phonemes is empty"),
        (lambda: lips_track([("a", 1.0, 0.5)]), "0 <= start <= end"),
        (lambda: lips_track([("a", 0, 0.5)], 0), "rate_hz is 0"),
        (lambda: speak("  "), "text is"),
        (lambda: speak("hello", words_per_minute=5), "words_per_minute is 5"),
        pytest.param(lambda: speak("hello", "klingon-zz"), "voice is 'klingon-zz'", marks=needs_espeak),
        (lambda: run([]), "nothing to do"),
        (lambda: run(["--sheet", "x.jpg"]), "must end in .png"),
        (lambda: run(["--people", "many"]), "invalid int value"),
    ],
)
def test_bad_input_is_one_sentence(wrong, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as error:
        wrong()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_sheet_from_the_command_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    program = [sys.executable, "-m", "flashlips_edge.training.synthetic_head"]
    done = subprocess.run([*program, "--sheet", str(tmp_path / "sheet.png"), "--people", "2"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (160, 2560, 3)
    wrong = subprocess.run([*program, "--sheet", str(tmp_path / "a.txt")], capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr and wrong.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]
