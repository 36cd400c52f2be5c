"""Features have the length that the lips need; silence is told by what is heard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.media.audio_file import read_audio
from flashlips_edge.speech.features import N_MELS, SAMPLE_RATE_HZ, SAMPLES_PER_STEP, log_mel, steps_of
from flashlips_edge.speech.silence import LEAD_STEPS, Fade, silence_weight, speech_steps

SPEECH = Path(__file__).parents[1] / "flashlips_edge" / "assets" / "speech.flac"


@given(samples=st.integers(0, 5000))
def test_four_feature_frames_for_every_step(samples: int) -> None:
    mel = log_mel(np.zeros(samples, np.float32))
    assert mel.shape == (4 * steps_of(samples), N_MELS) and np.isfinite(mel).all()


def test_a_tone_lights_its_own_band_and_only_while_it_sounds() -> None:
    time_s = np.arange(16_000) / 16_000
    tone = np.where(time_s < 0.5, np.sin(2 * np.pi * 1000 * time_s), 0).astype(np.float32)
    mel = log_mel(tone)
    bands = 700 * (10 ** (np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 7600 / 700), N_MELS + 2) / 2595) - 1)
    assert bands[mel[10].argmax() + 1] == pytest.approx(1000, rel=0.06)
    assert mel[48].max() > 0.5 and mel[53].max() < -0.5  # feature frame i is centred on 10 i + 5 ms


def test_features_do_not_depend_on_what_comes_later() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    part = log_mel(sound[:16_000])
    assert np.allclose(log_mel(sound)[:98], part[:98], atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-4, 1e-3, 1e-2], ids=["digital silence", "-80 dB", "-60 dB", "-40 dB"])
def test_nothing_and_steady_noise_are_silence(level: float) -> None:
    sound = (level * np.random.default_rng(0).standard_normal(3 * 16_000)).astype(np.float32)
    assert silence_weight(sound).mean() > 0.97


@pytest.mark.parametrize("noise", [0.0, 1e-3], ids=["as recorded", "-60 dB of noise"])
def test_speech_in_the_words_and_silence_after_them(data_path: Callable[[str], Path], noise: float) -> None:
    within, after = [], []
    for path in sorted(data_path("test/grid_s1").glob("*.align")):
        words = [line.split() for line in path.read_text().splitlines()]
        spoken = [(int(a) // 1000, int(b) // 1000) for a, b, word in words if word not in ("sil", "sp")]  # in steps of 40 ms
        sound = read_audio(path.with_suffix(".mpg"))
        noisy = sound + np.float32(noise) * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
        weight = silence_weight(noisy)
        within.append(weight[spoken[0][0] + 2 : spoken[-1][1] - 2].mean())
        after.append(weight[spoken[-1][1] + 6 :].mean())
    assert np.mean(within) < 0.15
    assert np.mean(after) > 0.85


def test_a_moment_of_digital_silence_at_either_end_changes_nothing_seconds_away() -> None:
    """Files that were cut or encoded have one."""
    speech = read_audio(SPEECH)
    hum = 1 + 0.5 * np.sin(np.arange(len(speech)) / SAMPLE_RATE_HZ * 2 * np.pi * 1.3)
    noise = 0.01 * hum * np.random.default_rng(0).standard_normal(len(speech))
    sound = (speech + noise)[: len(speech) // SAMPLES_PER_STEP * SAMPLES_PER_STEP].astype(np.float32)
    alone = speech_steps(sound)
    before = speech_steps(np.concatenate([np.zeros(SAMPLES_PER_STEP, np.float32), sound]))[1:]
    after = speech_steps(np.concatenate([sound, np.zeros(125, np.float32)]))[: len(alone)]
    assert (before != alone).sum() <= 3 and (after != alone).sum() <= 3, "of 183 steps"


def test_the_mouth_is_closed_200_ms_after_the_last_word() -> None:
    random = np.random.default_rng(0)
    speech = np.repeat(random.uniform(0, 0.3, 100), 160).astype(np.float32) * random.standard_normal(16_000).astype(np.float32)
    sound = np.concatenate([speech, np.zeros(16_000, np.float32)])
    weight = silence_weight(sound)
    end = len(speech) // SAMPLES_PER_STEP
    assert weight[: end - 1].mean() < 0.1
    assert weight[end + 5 :].min() == 1.0
    assert np.abs(np.diff(weight)).max() < 0.5, "the lips close, they do not jump"


@given(st.lists(st.booleans(), max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_the_fade_goes_on_from_piece_to_piece(speech: list[bool], cuts: list[int]) -> None:
    steps = np.array(speech, bool)
    whole = Fade()(steps, len(steps))
    fade, borders = Fade(), sorted({0, *(cut for cut in cuts if cut < len(steps)), len(steps)})
    pieces = [fade(steps[a : b + LEAD_STEPS], b - a) for a, b in zip(borders, borders[1:])]
    assert np.array_equal(np.concatenate([np.zeros(0, np.float32), *pieces]), whole)
    assert not len(whole) or np.abs(np.diff(whole, prepend=np.float32(1))).max() < 0.34, "the lips neither close nor open at once"


def test_no_sound_has_no_steps() -> None:
    assert silence_weight(np.zeros(0, np.float32)).shape == (0,)
