"""Written videos: their size, times, colours and sound, read back as a player would; and files that must not appear."""

from __future__ import annotations

import resource
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import click_times, clicks, corners, read_corners, write_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from flashlips_edge.errors import UserError
from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter

RATE = Fraction(25)
STEP_NS = 40_000_000


def write(path: Path, n: int = 10, size: tuple[int, int] = (64, 48), rate: Fraction = RATE, **options) -> Path:
    with VideoWriter(path, *size, rate, **options) as writer:
        for i in range(n):
            writer.write(corners(*size), round(i * 1_000_000_000 / rate))
    return path


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """float32 [N] of the first channel, placed by its time stamps, and the rate: by PyAV alone."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        assert frames[0].pts * frames[0].time_base == 0
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]), stream.codec_context.sample_rate


@pytest.mark.parametrize("size", [(64, 48), (63, 48), (64, 47), (63, 47), (1080, 1918)])
def test_the_size_is_kept_exactly(tmp_path: Path, size: tuple[int, int]):
    path = write(tmp_path / "out.mp4", n=3, size=size)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", *size)
        assert stream.codec_context.pix_fmt == ("yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p")
    frames = list(VideoFile(path))
    assert len(frames) == 3
    assert frames[0].image.shape == (size[1], size[0], 3)
    assert read_corners(frames[0].image) == ["top left", "top right", "bottom left", "bottom right"]


def test_the_file_says_that_its_lips_were_synthesised(tmp_path: Path):
    with av.open(str(write(tmp_path / "out.mp4", n=3))) as container:
        assert "synthesised by FlashLips Edge" in container.metadata["comment"]


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(15, 2)])
def test_times_and_rate_of_every_rate_are_exact(tmp_path: Path, rate: Fraction):
    video = VideoFile(write(tmp_path / "out.mp4", n=30, rate=rate))
    assert video.frame_rate == rate and video.frames == 30
    assert [f.pts_ns for f in video] == [round(i * 1_000_000_000 / rate) for i in range(30)]
    assert video.duration_ns == pytest.approx(30 * 1e9 / rate, abs=1e6), "the last frame lasts as long as the others"


@settings(max_examples=5)
@given(st.lists(st.integers(1_000_000, 400_000_000), min_size=1, max_size=12))
def test_variable_times_are_kept(tmp_path_factory, steps: list[int]):
    path = tmp_path_factory.mktemp("vfr") / "out.mp4"
    times = [0, *np.cumsum(steps).tolist()]
    with VideoWriter(path, 64, 48, Fraction(30000, 1001)) as writer:
        for pts_ns in times:
            writer.write(corners(), pts_ns)
    assert [f.pts_ns for f in VideoFile(path)] == pytest.approx(times, abs=6_000)


def test_times_that_hardly_differ_are_taken(tmp_path: Path):
    times = [0, STEP_NS - 1, STEP_NS, 2 * STEP_NS]
    with VideoWriter(tmp_path / "out.mp4", 64, 48, RATE) as writer:
        for pts_ns in times:
            writer.write(corners(), pts_ns)
    assert [f.pts_ns for f in VideoFile(tmp_path / "out.mp4")] == pytest.approx(times, abs=12_000)


@pytest.mark.parametrize("size", [(640, 480), (1280, 720)], ids=["BT.601", "BT.709"])
@pytest.mark.parametrize("rgb", [(255, 255, 255), (0, 0, 0), (200, 40, 40), (40, 180, 60), (40, 60, 200), (180, 130, 100)])
def test_colours_come_back(tmp_path: Path, size: tuple[int, int], rgb: tuple[int, int, int]):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, *size, RATE) as writer:
        writer.write(np.full((size[1], size[0], 3), rgb, np.uint8), 0)
    (frame,) = VideoFile(path)
    assert np.abs(frame.image.astype(int) - rgb).max() <= 3
    expected = colour.BT709 if size == (1280, 720) else colour.SMPTE170M
    assert frame.tags == (expected, expected, expected, colour.LIMITED)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p"], ids=["limited", "full"])
def test_a_copied_video_looks_the_same(tmp_path: Path, pixels: str):
    codec = "mjpeg" if pixels == "yuvj420p" else "libx264"
    source = VideoFile(write_clip(tmp_path / "in.mov", codec, pixels=pixels, n=20, frame_rate=Fraction(30000, 1001)))
    with VideoWriter(tmp_path / "out.mp4", source.width, source.height, source.frame_rate) as writer:
        for frame in source:
            writer.write(frame)
    copy = VideoFile(tmp_path / "out.mp4")
    for old, new in zip(source, copy, strict=True):
        assert old.pts_ns == new.pts_ns and old.tags == new.tags
        assert np.abs(old.image.astype(int) - new.image).mean() < 1.5
    with av.open(str(tmp_path / "out.mp4")) as container:
        keys = [frame.key_frame for frame in container.decode(video=0)]
    assert sum(keys) == 1, "the source's frame types are not taken over"


def test_a_frame_can_be_written_many_times_and_painted(tmp_path: Path):
    frame = next(iter(VideoFile(write_clip(tmp_path / "in.mp4"))))
    white = frame.replace(0, 0, np.full((24, 32, 3), 255, np.uint8))
    with VideoWriter(tmp_path / "out.mp4", 64, 48, RATE) as writer:
        for i in range(6):
            writer.write(white if i % 2 else frame, i * STEP_NS)
    for i, frame in enumerate(VideoFile(tmp_path / "out.mp4")):
        assert read_corners(frame.image)[1:] == ["top right", "bottom left", "bottom right"]
        assert (frame.image[12, 16].min() > 240) == bool(i % 2)


def test_frames_with_other_colour_tags_are_converted(tmp_path: Path):
    tags = colour.Colour(colour.BT709, colour.BT709, colour.BT709, colour.FULL)
    with VideoWriter(tmp_path / "out.mp4", 64, 48, RATE) as writer:
        writer.write(corners(), 0)
        writer.write(Frame.of_yuv(colour.rgb_to_yuv(corners(), tags), STEP_NS))
    first, second = VideoFile(tmp_path / "out.mp4")
    assert np.abs(first.image.astype(int) - second.image).mean() < 3


@pytest.mark.parametrize(("sample_rate_hz", "channels"), [(8000, 1), (16000, 1), (22050, 2), (37800, 1), (44100, 2), (48000, 6)])
def test_sound_is_in_sync(tmp_path: Path, sample_rate_hz: int, channels: int):
    samples = np.repeat(clicks(2.0, sample_rate_hz)[:, None], channels, axis=1)
    path = write(tmp_path / "out.mp4", n=50, audio=(samples, sample_rate_hz))
    heard, rate_hz = read_sound(path)
    assert click_times(heard, rate_hz) == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=0.002)
    assert len(heard) / rate_hz == pytest.approx(2.0, abs=0.15), "whole AAC frames"


@pytest.mark.parametrize(("seconds", "n"), [(2.0, 5), (0.2, 50)], ids=["longer sound", "longer pictures"])
def test_sound_and_pictures_may_differ_in_length(tmp_path: Path, seconds: float, n: int):
    path = write(tmp_path / "out.mp4", n=n, audio=(clicks(seconds, 16000, 0.15), 16000))
    heard, rate_hz = read_sound(path)
    assert len(list(VideoFile(path))) == n
    assert click_times(heard, rate_hz) == pytest.approx(np.arange(0, seconds, 0.15).tolist(), abs=0.002)


def test_sound_that_comes_bit_by_bit(tmp_path: Path):
    sound = clicks(1.0, 16000)
    with VideoWriter(tmp_path / "out.mp4", 64, 48, RATE, audio=(sound[:0], 16000)) as writer:
        for i in range(25):
            writer.write_audio(sound[i * 640 : (i + 1) * 640])
            writer.write(corners(), i * STEP_NS)
    heard, rate_hz = read_sound(tmp_path / "out.mp4")
    assert click_times(heard, rate_hz) == pytest.approx([0.0, 0.5], abs=0.002)


def test_the_pixels_shape_is_kept(tmp_path: Path):
    path = write(tmp_path / "out.mp4", pixel_aspect=Fraction(16, 15))
    assert VideoFile(path).pixel_aspect == Fraction(16, 15)


def test_a_player_can_start_before_the_file_is_whole(tmp_path: Path):
    data = write(tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_interrupt_leaves_a_file_that_plays_with_its_sound_cut(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 64, 48, RATE, audio=(clicks(5.0, 16000), 16000)) as writer:
        for i in range(25):
            writer.write(corners(), i * STEP_NS)
        raise KeyboardInterrupt
    assert len(list(VideoFile(tmp_path / "out.mp4"))) == 25
    heard, rate_hz = read_sound(tmp_path / "out.mp4")
    assert len(heard) / rate_hz == pytest.approx(1.0, abs=0.15)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_interrupt_before_the_first_frame_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 64, 48, RATE):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_hold_a_colon(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(list(VideoFile(write(Path("talk:1.mp4"), n=3)))) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["talk:1.mp4"]


def test_failure_leaves_what_was_there_before(tmp_path: Path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(RuntimeError, match="elsewhere"), VideoWriter(path, 64, 48, RATE) as writer:
        writer.write(corners(), 0)
        raise RuntimeError("something failed elsewhere")
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_no_frame_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=r"out\.mp4: no frame came"), VideoWriter(tmp_path / "out.mp4", 64, 48, RATE):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.avi", "out", "out.mp3"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str):
    with pytest.raises(UserError, match=r"--out .*must end in \.mp4, \.m4v or \.mov"):
        VideoWriter(tmp_path / name, 64, 48, RATE, argument="--out")


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        VideoWriter(tmp_path / "file" / "out.mp4", 64, 48, RATE)


def test_a_folder_in_its_place_is_one_sentence(tmp_path: Path):
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(UserError, match=r"out\.mp4: it cannot be written: Is a directory"):
        write(tmp_path / "out.mp4", n=3)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 240, 320, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"out\.mp4: it cannot be written"), VideoWriter(tmp_path / "out.mp4", 320, 240, RATE) as writer:
            for i, image in enumerate(noise):
                writer.write(image, i * STEP_NS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_wrong_use_is_named(tmp_path: Path):
    with VideoWriter(tmp_path / "out.mp4", 64, 48, RATE) as writer:
        writer.write(corners(), STEP_NS)
        with pytest.raises(ValueError, match="32 x 48, the file 64 x 48"):
            writer.write(corners(32, 48), 2 * STEP_NS)
        with pytest.raises(ValueError, match="does not come after"):
            writer.write(corners(), STEP_NS)
        with pytest.raises(ValueError, match="without audio"):
            writer.write_audio(np.zeros(10, np.float32))
