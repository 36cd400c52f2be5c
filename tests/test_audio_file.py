"""Sound from files and PCM streams: kinds, rates, channels, the time scale of the pictures, and what is refused."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from clips import click_times, clicks, write_clip
from hypothesis import given
from hypothesis import strategies as st

from flashlips_edge.errors import UserError
from flashlips_edge.media.audio_file import Sound, read_audio, read_pcm, read_sound


def tone(seconds: float, sample_rate_hz: int, frequency_hz: float = 440) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz)).astype(np.float32)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
@pytest.mark.parametrize("sample_rate_hz", [8000, 16000, 44100, 48000])
def test_each_kind_and_rate_becomes_mono_16_khz(tmp_path: Path, name: str, sample_rate_hz: int):
    path = tmp_path / name
    soundfile.write(path, tone(1.0, sample_rate_hz), sample_rate_hz)
    speech = read_audio(path)
    assert speech.dtype == np.float32 and speech.ndim == 1
    assert len(speech) == pytest.approx(16000, abs=1200 if name in ("a.mp3", "a.ogg") else 0), "whole frames"
    middle = speech[4000:12000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * 2 == 440
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)


def test_channels_are_averaged_and_the_original_is_kept(tmp_path: Path):
    left, right = tone(0.5, 44100), tone(0.5, 44100, 880)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44100, subtype="FLOAT")
    sound = read_sound(tmp_path / "a.wav")
    assert sound.sample_rate_hz == 44100 and sound.duration_ns == 500_000_000
    assert np.allclose(sound.samples, np.stack([left, right], axis=1), atol=1e-6)
    soundfile.write(tmp_path / "b.wav", (left + right) / 2, 44100, subtype="FLOAT")
    assert np.allclose(sound.speech(), read_audio(tmp_path / "b.wav"), atol=1e-5)


def test_a_voice_in_the_centre_of_six_channels_is_heard_as_in_a_player(tmp_path: Path):
    samples = np.zeros((8000, 6), np.float32)
    samples[:, 2] = tone(0.5, 16_000)
    soundfile.write(tmp_path / "film.wav", samples, 16_000, subtype="FLOAT")
    sound = read_sound(tmp_path / "film.wav")
    assert np.allclose(sound.samples, samples[:, [2, 2]] / np.sqrt(2), atol=1e-3)
    assert np.allclose(sound.speech(), samples[:, 2] / np.sqrt(2), atol=1e-3)


def test_channels_that_cancel_out_are_heard_all_the_same(tmp_path: Path):
    """As of a cable whose poles are swapped at one end."""
    left = tone(0.5, 16_000)
    assert np.allclose(Sound(np.stack([left, -0.9 * left], axis=1), 16_000).speech(), left)
    silent = np.zeros((100, 2), np.float32)
    assert not Sound(silent, 16_000).speech().any()


@pytest.mark.parametrize(
    ("name", "codec", "sound_codec", "sound_rate_hz"),
    [
        ("a.mp4", "libx264", "aac", 44100),
        ("a.mkv", "libx264", "aac", 16000),
        ("a.webm", "libvpx-vp9", "libopus", 48000),
        ("a.flv", "flv", "libmp3lame", 44100),
        ("a.mpg", "mpeg1video", "mp2", 44100),
    ],
)
def test_the_sound_of_a_video_is_on_the_pictures_time_scale(tmp_path: Path, name, codec, sound_codec, sound_rate_hz):
    sound = clicks(2.0, sound_rate_hz)
    path = write_clip(tmp_path / name, codec, n=50, sound=sound, sound_rate_hz=sound_rate_hz, sound_codec=sound_codec)
    delay = 0.03 if name in ("a.flv", "a.mpg") else 0.003  # mp2 and mp3 there have no word for the encoder's delay
    times = click_times(read_audio(path), 16000)
    assert times == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=delay)


@pytest.mark.parametrize("first", [5, 50])
def test_sound_before_the_first_picture_is_left_out(tmp_path: Path, first: int):
    pts = [first + i for i in range(50)]
    path = write_clip(tmp_path / "a.mkv", n=50, pts=pts, time_base=Fraction(1, 25), sound=clicks(4.0, 16000))
    expected = [t - first / 25 for t in np.arange(0, 4, 0.5) if t >= first / 25]
    assert click_times(read_audio(path), 16000) == pytest.approx(expected, abs=0.003)


def test_a_cut_file_gives_what_is_there(tmp_path: Path):
    for name in ("a.wav", "a.mp3", "a.flac"):
        path = tmp_path / name
        soundfile.write(path, tone(2.0, 16000), 16000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert 8000 < len(read_audio(path)) < 24000


def _text(folder: Path) -> Path:
    (folder / "text.wav").write_text("these are words, not sound\n" * 100)
    return folder / "text.wav"


def _text_mp3(folder: Path) -> Path:
    (folder / "text.mp3").write_text("these are words, not sound\n" * 100)
    return folder / "text.mp3"


def _empty(folder: Path) -> Path:
    (folder / "empty.wav").touch()
    return folder / "empty.wav"


def _zero_length(folder: Path) -> Path:
    soundfile.write(folder / "zero.wav", np.zeros(0, np.float32), 16000)
    return folder / "zero.wav"


def _mute(folder: Path) -> Path:
    return write_clip(folder / "mute.mp4")


def _missing(folder: Path) -> Path:
    return folder / "missing.wav"


def _folder(folder: Path) -> Path:
    return folder


def _nan(folder: Path) -> Path:
    soundfile.write(folder / "nan.wav", np.array([0, np.nan, 0.1] * 1000, np.float32), 16000, subtype="FLOAT")
    return folder / "nan.wav"


def _slow(folder: Path) -> Path:
    soundfile.write(folder / "slow.wav", np.zeros(1000, np.float32), 500)
    return folder / "slow.wav"


@pytest.mark.parametrize("make", [_text, _text_mp3, _empty, _zero_length, _mute, _missing, _folder, _nan, _slow])
def test_what_is_not_sound_is_refused_in_one_sentence(tmp_path: Path, make, capfd):
    path = make(tmp_path)
    with pytest.raises(UserError) as refusal:
        read_sound(path, "--audio")
    sentence = str(refusal.value)
    assert sentence.startswith(f"--audio {path}") and "\n" not in sentence
    assert "give" in sentence or "must be from 4000 to 384000 Hz" in sentence
    assert capfd.readouterr() == ("", ""), "FFmpeg's own words"


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50))
def test_pcm_of_16_bits(values: list[int]):
    sound = read_pcm(io.BytesIO(np.array(values, "<i2").tobytes()))
    assert sound.sample_rate_hz == 16000
    assert np.array_equal(sound.samples[:, 0] * 32768, values)


@pytest.mark.parametrize(
    ("sample_format", "raw"),
    [("s16be", b"\x40\x00"), ("s32le", b"\x00\x00\x00\x40"), ("u8", b"\xc0"), ("f32le", np.float32(0.5).tobytes())],
)
def test_other_pcm_formats(sample_format: str, raw: bytes):
    sound = read_pcm(io.BytesIO(raw * 4), 48000, 2, sample_format)
    assert sound.samples.shape == (2, 2) and np.all(sound.samples == 0.5)


def test_half_a_sample_at_the_end_is_dropped():
    assert len(read_pcm(io.BytesIO(bytes(2 * 100 + 1))).samples) == 100


@pytest.mark.parametrize(
    ("raw", "options", "words"),
    [
        (b"", {}, "--audio -: standard input held no sound"),
        (b"\x00", {}, "--audio -: standard input held no sound"),
        (b"RIFF" + bytes(100), {}, "holds a sound file"),
        (bytes(100), {"sample_rate_hz": 0}, "--sample-rate 0"),
        (bytes(100), {"sample_rate_hz": 10**7}, "must be from 4000 to 384000 Hz"),
        (bytes(100), {"channels": 3}, "--channels 3: give 1 or 2"),
        (bytes(100), {"sample_format": "mp3"}, "--sample-format mp3: give one of s16le"),
        (np.float32(np.nan).tobytes(), {"sample_format": "f32le"}, "not numbers"),
    ],
)
def test_pcm_that_is_none_is_refused_in_one_sentence(raw: bytes, options: dict, words: str):
    with pytest.raises(UserError) as refusal:
        read_pcm(io.BytesIO(raw), **options)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_real_sound(data_path):
    assert len(read_audio(data_path("test/speech/jfk.wav"))) == 176_000
    talk = read_sound(data_path("test/video/latentsync_demo1.mp4"))
    assert talk.samples.shape[1] == 2 and talk.sample_rate_hz == 44100
    assert talk.duration_ns == pytest.approx(10.0e9, rel=0.01)
    for path in (next(data_path("train/crema_d").glob("*.flv")), next(data_path("test/grid_unseen").glob("*.mpg"))):
        speech = read_audio(path)
        assert 16_000 < len(speech) < 80_000 and 0.05 < np.abs(speech).max() <= 1.1


def test_without_its_pictures_all_of_a_video_s_sound_is_heard(tmp_path: Path):
    """Pictures that begin a second later: in step with them the first second is left out."""
    late = write_clip(tmp_path / "late.mkv", pts=range(25, 35), time_base=Fraction(1, 25), sound=clicks(2.0, 16_000))
    in_step, alone = read_sound(late), read_sound(late, alone=True)
    assert click_times(alone.mono(), 16_000) == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=0.03)
    assert click_times(in_step.mono(), 16_000) == pytest.approx([0.0, 0.5], abs=0.03)
