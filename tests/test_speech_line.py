"""Pushed sound, its lips and the pictures that show them, on a clock that jumps: what is seen is what is heard."""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import CLOSED, RATE_HZ, Shown, Simulation, voice

from flashlips_edge.errors import UserError
from flashlips_edge.live.inflow import TARGET_NS, Inflow
from flashlips_edge.live.pcm import mono
from flashlips_edge.live.speech_line import WAITING_NS

MS = 1_000_000
SECOND = 1000 * MS


class Watched(Simulation):
    """Keeps what was heard and seen."""

    def __init__(self, monkeypatch, seconds: float = 30, **how):
        super().__init__(monkeypatch, **how)
        self.sound = np.zeros(int(RATE_HZ * seconds), np.float32)
        self.frames: list[tuple[int, Shown]] = []  # media time when it was shown
        self.heard = self._hear
        self.seen = lambda frame: self.frames.append((self.playback.position_ns(), frame))

    def _hear(self, samples: np.ndarray, position: int) -> None:
        part = self.sound[position : position + len(samples)]
        part[:] = samples[: len(part)]

    def say(self, pcm: np.ndarray, sample_rate_hz: int = 16_000, piece_ns: int = 20 * MS) -> None:
        """As a microphone does: a piece at a time, when it was said."""
        count = sample_rate_hz * piece_ns // SECOND
        for start in range(0, len(pcm), count):
            self.run(piece_ns)
            self.speech.push(pcm[start : start + count], sample_rate_hz)

    def mouths(self) -> np.ndarray:
        return np.array([frame.mouth for _, frame in self.frames])

    def loudness_at(self, pts_ns: int) -> float:
        """Of the 40 ms that are heard from a time on: what the lips should show."""
        start = pts_ns * RATE_HZ // SECOND
        return float(np.abs(self.sound[start : start + RATE_HZ // 25]).mean())

    def delay_ms(self) -> int:
        """By how much the mouths are behind the sound heard with them: the shift at which they agree best; it must be a good agreement."""
        frames = [(heard_ns, frame.mouth) for heard_ns, frame in self.frames if frame.mouth > 0.02]
        assert len(frames) > 15
        apart = {
            shift: float(np.mean([abs(mouth - self.loudness_at(heard_ns - shift * MS)) for heard_ns, mouth in frames]))
            for shift in range(-200, 201, 10)
        }
        best = min(apart, key=apart.__getitem__)
        assert apart[best] < 0.06
        return best

    def first_sound_ns(self) -> int:
        return int(np.flatnonzero(np.abs(self.sound) > 0.01)[0]) * SECOND // RATE_HZ


@pytest.fixture
def live(monkeypatch):
    return Watched(monkeypatch)


def test_what_is_seen_is_what_is_heard(live):
    live.run(SECOND)
    live.speech.push(voice(4), 16_000)
    live.speech.end_sentence()
    live.run(6 * SECOND)
    assert abs(live.delay_ms()) <= 20
    assert live.show.counters.repeated == 0 and live.pictures.counters.dropped == 0
    live.frames = [(heard_ns + 80 * MS, frame) for heard_ns, frame in live.frames]  # and it would tell if it were not
    assert 60 <= live.delay_ms() <= 100


def test_all_sound_is_heard_once_and_without_a_gap(live):
    t, wanted_t = np.arange(48_000) / 16_000, np.arange(3 * RATE_HZ) / RATE_HZ
    chirp, wanted = (
        (0.3 * np.sin(2 * np.pi * u) ** 2 * np.sin(2 * np.pi * (300 * u + 200 * u * u))).astype(np.float32) for u in (t, wanted_t)
    )
    live.say(chirp)
    live.speech.end_sentence()
    live.run(3 * SECOND)
    agreement = np.correlate(live.sound[: 5 * RATE_HZ], wanted, "valid").max() / (wanted**2).sum()
    assert agreement == pytest.approx(1, abs=0.01)


def test_a_microphone_is_heard_and_seen_a_quarter_of_a_second_later(live):
    live.run(SECOND)
    live.say(voice(4))
    assert 150 < live.speech.latency_ms.percentile(50) < 250
    assert live.speech.counters.late == 0
    live.run(SECOND)
    assert abs(live.delay_ms()) <= 20


@pytest.mark.parametrize("sample_rate_hz", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_is_heard_at_its_own_pitch(live, sample_rate_hz):
    live.speech.push(voice(2, sample_rate_hz=sample_rate_hz), sample_rate_hz)
    live.run(4 * SECOND)
    spectrum = np.abs(np.fft.rfft(live.sound[: 3 * RATE_HZ]))
    assert abs(np.argmax(spectrum) / 3 - 700) < 5


def test_the_mouth_is_closed_before_and_after_and_within_200_ms(live):
    live.run(SECOND)
    live.speech.push(voice(2), 16_000)
    live.speech.end_sentence()
    live.run(5 * SECOND)
    end_ns = int(np.flatnonzero(np.abs(live.sound) > 0.005)[-1]) * SECOND // RATE_HZ
    start_ns = live.first_sound_ns()
    closed = [frame.mouth for heard_ns, frame in live.frames if heard_ns > end_ns + 240 * MS or heard_ns < start_ns - 250 * MS]
    assert len(closed) > 50 and np.allclose(closed, CLOSED, atol=0.01)


def test_silence_that_is_pushed_closes_the_mouth_too(live):
    live.say(np.concatenate([voice(2), np.zeros(32_000, np.float32)]))
    assert np.allclose(live.mouths()[-25:], CLOSED, atol=0.01)
    assert live.speech.speaking


def test_steady_noise_is_silence(live):
    noise = np.random.default_rng(0).normal(0, 0.05, 64_000).astype(np.float32)
    live.say(noise)
    assert np.allclose(live.mouths()[25:], CLOSED, atol=0.01)


def test_a_source_that_stalls_leaves_a_closed_mouth_and_is_in_step_when_it_goes_on(live):
    live.run(SECOND)
    live.say(voice(2))
    live.run(3 * SECOND)
    assert live.frames[-1][1].mouth == pytest.approx(CLOSED)
    assert not live.speech.speaking
    live.frames.clear()
    live.say(voice(2))
    live.run(2 * SECOND)
    assert abs(live.delay_ms()) <= 20


def test_an_interruption_is_silent_at_once_and_closes_the_mouth_within_200_ms(live):
    live.run(SECOND)
    live.speech.push(voice(10), 16_000)
    live.run(SECOND)
    while live.mouths()[-1] < 0.25:
        live.run(10 * MS)
    now_ns = live.playback.position_ns()
    assert live.speech.interrupt() == 1
    live.run(2 * SECOND)
    silent_from = now_ns + 50 * MS
    assert not np.abs(live.sound[silent_from * RATE_HZ // SECOND :]).any()
    later = [frame.mouth for shown_ns, frame in live.frames if shown_ns >= now_ns + 200 * MS]
    assert len(later) > 40 and np.allclose(later, CLOSED, atol=0.01)
    jumps = np.abs(np.diff(live.mouths()))
    assert jumps.max() < 0.8  # from open to closed in steps, not at once


def test_what_comes_after_an_interruption_is_said_and_nothing_from_before(live):
    live.speech.push(voice(5, level=0.6), 16_000)
    live.run(SECOND)
    live.speech.push(voice(5, level=0.6), 16_000)
    live.speech.interrupt()
    live.speech.push(voice(2, level=0.2), 16_000)
    now = live.playback.taken
    live.run(4 * SECOND)
    after = live.sound[now + 2400 :]
    assert 0.2 < np.abs(after).max() < 0.4
    assert live.speech.pushes.dropped == 1


def test_another_sentence_pushed_while_one_is_said_follows_it(live):
    for _ in range(3):
        live.speech.push(voice(1), 16_000)
        live.speech.end_sentence()
        live.run(300 * MS)
    live.run(5 * SECOND)
    heard = np.abs(live.sound) > 0.005
    assert 2.6 * RATE_HZ < np.flatnonzero(heard)[-1] - np.flatnonzero(heard)[0] < 4.5 * RATE_HZ
    assert abs(live.delay_ms()) <= 20


def test_a_process_that_stood_still_is_in_step_again_at_once(live):
    live.run(SECOND)
    live.speech.push(voice(12), 16_000)
    live.run(SECOND)
    for stall_ms in (30, 90, 400, 2000):
        live.suspend(stall_ms * MS)
        live.run(10 * MS)
        live.frames.clear()
        live.run(SECOND)
        assert abs(live.delay_ms()) <= 20


@pytest.mark.parametrize("pace", [0.99, 1.01])
def test_a_microphone_one_percent_off_the_loudspeaker_stays_in_step(monkeypatch, pace):
    """For a minute: the sound that waits neither grows nor runs out, and sound and lips agree."""
    live = Watched(monkeypatch, seconds=70, device=1 / pace)
    live.run(SECOND)
    waits = []
    for _ in range(60):
        live.say(voice(1))
        waits.append(live.playback.queued_ns / MS)
    assert live.speech.latency_ms.percentile(95) < 330
    assert 60 < min(waits[20:]) and max(waits[20:]) < 330
    live.run(SECOND)
    assert abs(live.delay_ms()) <= 20


def test_a_backlog_of_a_live_source_is_made_good_in_its_pauses(live):
    """As after a process that stood still for a second: what the microphone had kept comes at once."""
    sentence = np.concatenate([voice(2), np.zeros(8_000, np.float32)])
    for _ in range(5):
        live.say(sentence)
    live.speech.push(voice(1), 16_000)
    assert live.speech.waiting_ns > 1100 * MS
    for _ in range(5):
        live.say(sentence)
    assert live.playback.queued_ns < 400 * MS
    live.frames.clear()
    live.say(sentence)
    assert abs(live.delay_ms()) <= 20


def test_a_source_that_is_faster_than_speech_is_not_hurried():
    inflow = Inflow(16_000, 48_000)
    for i in range(100):
        inflow.push(np.zeros(3200, np.float32), i * 100 * MS, 30 * SECOND)
    assert inflow.steer == 0


def test_a_live_source_with_too_much_waiting_is_hurried_a_little():
    inflow = Inflow(16_000, 48_000)
    for i in range(1000):
        inflow.push(np.zeros(320, np.float32), i * 20 * MS, TARGET_NS + 100 * MS)
    assert 0 < inflow.steer <= 0.015


def test_pauses_of_a_recording_that_is_held_back_are_left(live):
    """It comes at the clock's pace, since no more than four seconds of it may wait."""
    pushed = np.concatenate([voice(0.5), np.zeros(40_000, np.float32)] * 15)
    live.speech.push(pushed[: 4 * 16_000], 16_000)
    live.say(pushed[4 * 16_000 :], piece_ns=SECOND)
    live.run(3 * SECOND)
    loud = np.flatnonzero(np.abs(live.sound) > 0.01) / RATE_HZ
    pauses = np.diff(loud)[np.diff(loud) > 1]
    assert len(pauses) == 9 and np.ptp(pauses) < 0.002  # those that are kept: 30 s


def test_small_pieces_are_no_reason_to_look_more_often(monkeypatch):
    looks = []
    median = np.median
    monkeypatch.setattr(np, "median", lambda values: looks.append(1) or median(values))
    inflow = Inflow(48_000, 48_000)
    for i in range(10_000):
        inflow.push(np.zeros(48, np.float32), i * MS, TARGET_NS + 100 * MS)
    assert 200 < len(looks) <= 250 and 0 < inflow.steer <= 0.015  # of 5 s, 20 ms apart


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=30), st.sampled_from([8000, 16_000, 24_000, 44_100, 48_000]))
def test_pieces_of_any_length_make_as_much_sound_for_the_ear_as_for_the_lips(lengths, sample_rate_hz):
    inflow = Inflow(sample_rate_hz, 48_000)
    parts = [inflow.push(np.zeros(n, np.float32), 0, 0) for n in lengths] + [inflow.flush()]
    ear, lips = (sum(len(part[i]) for part in parts) for i in (0, 1))
    assert abs(ear - sum(lengths) * 48_000 / sample_rate_hz) <= 4
    assert abs(lips - ear / 3) <= 4


@pytest.mark.parametrize("frame_rate", [Fraction(25), Fraction(30_000, 1001), Fraction(24), Fraction(60)])
def test_any_frame_rate_is_in_step(monkeypatch, frame_rate):
    live = Watched(monkeypatch, frame_rate=frame_rate)
    live.speech.push(voice(4), 16_000)
    live.run(6 * SECOND)
    assert abs(live.delay_ms()) <= 20
    assert len(live.frames) == pytest.approx(6 * frame_rate, abs=2)


@given(st.floats(allow_nan=True, allow_infinity=True, width=32), st.integers(1, 8))
def test_what_is_no_number_becomes_silence_and_what_is_too_loud_is_clipped(value, channels):
    samples = mono(np.full((10, channels), value, np.float32), 16_000)
    assert np.isfinite(samples).all() and np.abs(samples).max() <= 1
    if not np.isfinite(value):
        assert not samples.any()


def test_broken_sound_is_heard_alike_from_any_number_of_channels():
    with np.errstate(all="raise"):
        for value, heard in ((np.nan, 0), (np.inf, 0), (3e38, 1), (-3e38, -1), (1e300, 1)):
            pcm = np.full((10, 2), value, np.float64 if value == 1e300 else np.float32)
            assert np.array_equal(mono(pcm, 16_000), np.full(10, heard)) and np.array_equal(mono(pcm[:, 0], 16_000), np.full(10, heard))
        assert mono(np.array([[np.inf, -np.inf], [9.0, 0.0]], np.float32), 16_000).tolist() == [0, 0.5]


@pytest.mark.parametrize(
    ("pcm", "rate", "words"),
    [
        (np.zeros(10, np.float32), 7999, "sample_rate_hz 7999 is out of range: 8000 to 192000"),
        (np.zeros(10, np.int32), 16_000, "pcm is int32; give int16, or float32"),
        (np.zeros((2, 2, 2), np.float32), 16_000, r"pcm has shape \[2, 2, 2\]; give \[n\] or \[n, channels\]"),
        (np.zeros((160, 9), np.float32), 16_000, "8 channels at most"),
    ],
)
def test_wrong_sound_is_refused_in_one_sentence(live, pcm, rate, words):
    with pytest.raises(UserError, match=words):
        live.speech.push(pcm, rate)


def test_a_rate_may_be_numpy_s(live):
    live.speech.push(voice(1, sample_rate_hz=24_000), np.int32(24_000))
    live.run(3 * SECOND)
    assert live.speech.waiting_ns == 0


def test_int16_and_stereo_are_heard_as_float_and_mono(live):
    assert np.allclose(mono(np.array([-32768, 16384], np.int16), 16_000), [-1, 0.5])
    assert np.allclose(mono(np.array([[1, 0], [0, 0.5]], np.float32), 16_000), [0.5, 0.25])


def test_channels_that_cancel_out_are_heard(live):
    said = voice(2)
    live.speech.push(np.stack([said, -said], axis=1), 16_000)
    live.run(4 * SECOND)
    assert np.allclose(mono(np.stack([said, -said], axis=1), 16_000), said) and len(mono(np.zeros((0, 2), np.float32), 16_000)) == 0
    assert np.square(live.sound).sum() / RATE_HZ == pytest.approx(np.square(said).sum() / 16_000, rel=0.05)


def test_what_is_being_taken_up_has_not_been_said(live):
    """Whoever waits until all was said would else hang up at once."""
    found: list[bool] = []
    looking = threading.Thread(target=lambda: found.append(live.speech.speaking))
    face = live.speech._face

    def slow():
        if looking.ident is None:
            looking.start()
            looking.join(0.2)
            assert not found
        return face()

    live.speech._face = slow
    live.speech.push(voice(1), 16_000)
    live.speech.poll()
    looking.join(20)
    assert found == [True]


def test_more_than_five_minutes_do_not_wait(live):
    with pytest.raises(UserError, match=r"300 s may wait: push later, or interrupt"):
        for _ in range(400):
            live.speech.push(np.zeros(16_000, np.float32), 16_000)
    assert live.playback.queued_ns <= WAITING_NS
    live.speech.interrupt()
    live.run(SECOND)
    live.speech.push(voice(1), 16_000)


def test_thousands_of_tiny_pieces_are_refused_before_they_pile_up(live):
    with pytest.raises(UserError, match="16384 pieces wait"):
        for _ in range(20_000):
            live.speech.push(np.zeros(16, np.float32), 16_000)


def test_a_whole_text_pushed_at_once_in_small_pieces_is_said_to_its_end(monkeypatch):
    """As a synthesised voice gives it, far faster than it is heard: 1500 pieces of 20 ms."""
    live = Watched(monkeypatch, seconds=33)
    pcm = voice(30)
    for start in range(0, len(pcm), 320):
        live.speech.push(pcm[start : start + 320], 16_000)
    live.speech.end_sentence()
    live.run(32 * SECOND)
    assert np.abs(live.sound).sum() / RATE_HZ == pytest.approx(np.abs(pcm).sum() / 16_000, rel=0.01)
    assert abs(live.delay_ms()) <= 40 and live.mouths()[-1] == CLOSED
