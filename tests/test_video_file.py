"""Frames of video files: kinds, times, rotation, sizes, and what is refused."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
from clips import corners, read_corners, turn_mp4, write_clip

from flashlips_edge.errors import UserError
from flashlips_edge.media.video_file import VideoFile

NTSC = Fraction(30000, 1001)
UPRIGHT = ["top left", "top right", "bottom left", "bottom right"]


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("h264.mp4", "libx264", Fraction(25)),
        ("h264.mov", "libx264", NTSC),
        ("h264.mkv", "libx264", Fraction(24000, 1001)),
        ("hevc.mp4", "libx265", Fraction(25)),
        ("vp9.webm", "libvpx-vp9", Fraction(30)),
        ("flv1.flv", "flv", NTSC),
        ("mpeg1.mpg", "mpeg1video", Fraction(25)),
        ("mpeg4.avi", "mpeg4", NTSC),
        ("mjpeg.mov", "mjpeg", Fraction(15)),
    ],
)
def test_each_kind_gives_every_frame_in_order(tmp_path: Path, name: str, codec: str, rate: Fraction):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {"log-level": "none"} if codec == "libx265" else {}
    with VideoFile(write_clip(tmp_path / name, codec, frame_rate=rate, pixels=pixels, options=options)) as video:
        frames = list(video)
    assert (video.width, video.height) == (64, 48)
    assert video.frame_rate == rate
    assert len(frames) == 10
    assert abs(video.frames - 10) <= 1 or name.endswith(".mpg"), "a short mpg does not say how long it is"
    for i, frame in enumerate(frames):
        assert frame.pts_ns == pytest.approx(i * 1e9 / rate, abs=1_000_000), "containers may keep milliseconds"
        assert read_corners(frame.image) == UPRIGHT
        assert np.abs(frame.image.astype(int) - corners()).mean() < 6


def test_exact_times_of_29_97(tmp_path: Path):
    frames = list(VideoFile(write_clip(tmp_path / "a.mp4", frame_rate=NTSC, n=31)))
    assert [f.pts_ns for f in frames] == [round(i * 1_001_000_000 / 30) for i in range(31)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_variable_frame_rate_keeps_each_time(tmp_path: Path, name: str):
    pts = [0, 40, 50, 120, 121, 300, 333, 400]
    path = write_clip(tmp_path / name, n=8, pts=pts, time_base=Fraction(1, 1000))
    assert [f.pts_ns for f in VideoFile(path)] == [p * 1_000_000 for p in pts]


@pytest.mark.parametrize("name", ["late.mkv", "late.ts", "late.mp4"])
def test_first_picture_is_time_zero_wherever_the_file_starts(tmp_path: Path, name: str):
    pts = [75 + i for i in range(10)]
    frames = list(VideoFile(write_clip(tmp_path / name, pts=pts, time_base=Fraction(1, 25))))
    assert [f.pts_ns for f in frames] == pytest.approx([i * 40_000_000 for i in range(10)], abs=1_000_000)


def test_missing_times_become_one_frame_after_another(tmp_path: Path):
    frames = list(VideoFile(write_clip(tmp_path / "raw.h264", options={"bf": "0"})))
    steps = np.diff([f.pts_ns for f in frames])
    assert len(frames) == 10 and frames[0].pts_ns == 0
    assert (steps == 40_000_000).all()


def test_a_time_that_comes_twice_is_put_one_frame_later(tmp_path: Path):
    stamps = [0, 1, 2, 2, 3, 4]  # of 1001/30000 s: the third is no whole number of nanoseconds, and rounded down
    with av.open(str(tmp_path / "twice.ts"), "w") as container:
        stream = container.add_stream("mpeg2video", rate=NTSC, width=64, height=48)
        stream.codec_context.max_b_frames = 0
        pictures = [av.VideoFrame.from_ndarray(corners()) for _ in stamps]
        packets = [packet for picture in [*pictures, None] for packet in stream.encode(picture)]
        for i, (packet, stamp) in enumerate(zip(packets, stamps, strict=True)):
            packet.time_base, packet.pts, packet.dts = Fraction(1, 90_000), 3003 * stamp, 3003 * (i - 1)
            container.mux(packet)
    times = [frame.pts_ns for frame in VideoFile(tmp_path / "twice.ts")]
    assert times == pytest.approx([i * 1e9 / NTSC for i in (0, 1, 2, 3, 3, 4)], abs=2)
    assert all(a < b for a, b in pairwise(times))


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ],
    ids=["none", "clockwise", "half", "counterclockwise", "mirrored", "upside down", "transposed"],
)
def test_rotation_and_mirror_flags_are_applied(tmp_path: Path, matrix: tuple, turn):
    path = write_clip(tmp_path / "phone.mp4", n=2)
    turn_mp4(path, matrix)
    video = VideoFile(path)
    expected = turn(corners())
    for frame in video:
        assert frame.image.shape == expected.shape == (video.height, video.width, 3)
        assert read_corners(frame.image) == read_corners(expected)
        assert frame.luma.shape == (video.height, video.width)


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (63, 47)])
@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0)], ids=["upright", "turned"])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int], matrix: tuple):
    path = write_clip(tmp_path / "odd.mp4", "libvpx-vp9", size, n=2)
    turn_mp4(path, matrix)
    size = size if matrix[0] else size[::-1]
    for frame in VideoFile(path):
        assert (frame.width, frame.height) == size
        assert frame.image.shape == (size[1], size[0], 3)


@pytest.mark.parametrize("pixels", ["yuv422p", "yuv444p", "yuv420p10le", "gray", "bgr0"])
def test_other_pixel_formats(tmp_path: Path, pixels: str):
    frame = next(iter(VideoFile(write_clip(tmp_path / "a.mkv", "ffv1", n=1, pixels=pixels))))
    assert frame.yuv.format.name == "yuv420p"
    if pixels == "gray":
        assert np.ptp(frame.image.astype(int), axis=2).max() <= 3
    else:
        assert read_corners(frame.image) == UPRIGHT


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_still_picture_is_a_video_of_one_frame(tmp_path: Path, suffix: str):
    path = tmp_path / f"still{suffix}"
    cv2.imwrite(str(path), corners(63, 47)[:, :, ::-1])
    video = VideoFile(path)
    (frame,) = video
    assert (video.frames, frame.pts_ns, frame.image.shape) == (1, 0, (47, 63, 3))
    assert read_corners(frame.image) == UPRIGHT


def test_a_file_can_be_read_again_and_left_early(tmp_path: Path):
    with VideoFile(write_clip(tmp_path / "a.mp4")) as video:
        next(iter(video))
        assert len(list(video)) == len(list(video)) == 10


def test_sound_is_noticed(tmp_path: Path):
    assert not VideoFile(write_clip(tmp_path / "mute.mp4")).has_audio
    assert VideoFile(write_clip(tmp_path / "loud.mp4", sound=np.zeros(8000, np.float32))).has_audio


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mpg", "cut.avi", "cut.flv"])
def test_a_file_that_breaks_off_gives_what_is_there(tmp_path: Path, name: str):
    codec = {"mkv": "libx264", "mpg": "mpeg1video", "avi": "mpeg4", "flv": "flv"}[name[-3:]]
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    path = write_clip(tmp_path / name, codec, images=list(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert 5 < len(list(VideoFile(path))) < 30


def test_a_file_that_breaks_off_before_the_end_that_it_names_says_so(tmp_path: Path, caplog):
    noise = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), np.uint8)
    whole = write_clip(tmp_path / "whole.mp4", images=list(noise), muxing={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert len(list(VideoFile(whole))) == 50 and not caplog.records
    frames = [len(list(VideoFile(cut, "--avatar"))) for _ in range(2)]
    assert 10 < frames[0] == frames[1] < 40
    (record,) = caplog.records  # said once
    assert re.fullmatch(rf"--avatar {cut}: it breaks off after [01]\.\d of 2\.0 s", record.message)


def test_a_packet_that_cannot_be_decoded_is_passed_over_and_that_is_said(tmp_path: Path, caplog):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    path = write_clip(tmp_path / "damaged.avi", "mpeg4", images=list(noise))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    assert len(list(VideoFile(path, "--avatar"))) > 10
    assert f"--avatar {path}: parts of it are damaged and were passed over" in caplog.text


def fields(n: int) -> list[np.ndarray]:
    """A bar that moves by 4 pixels from the even lines of a picture to its odd ones, and on."""
    images = [np.full((48, 128, 3), 40, np.uint8) for _ in range(n)]
    for number, image in enumerate(images):
        for odd in (0, 1):
            x = 4 * (2 * number + odd) % 110
            image[odd::2, x : x + 16] = 220
    return images


def combed(luma: np.ndarray) -> float:
    """How far each line is from the next, on average; its edges are those of the filter."""
    return float(np.abs(np.diff(luma[4:-4].astype(float), axis=0)).mean())


INTERLACED = {
    "h264.mp4": ("libx264", {"x264-params": "tff=1", "crf": "10"}),
    "h264.mkv": ("libx264", {"x264-params": "bff=1", "crf": "10"}),
    "mpeg2.mpg": ("mpeg2video", {"flags": "+ilme+ildct", "b": "8M"}),
}


@pytest.mark.parametrize("name", INTERLACED)
def test_interlaced_pictures_are_made_whole_and_that_is_said(tmp_path: Path, name: str, caplog):
    codec, options = INTERLACED[name]
    images = [image[::-1] for image in fields(12)] if "bff" in str(options) else fields(12)
    path = write_clip(tmp_path / name, codec, size=(128, 48), images=images, options=options)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        first, base = decoded[0].pts, container.streams.video[0].time_base
    video = VideoFile(path, "--avatar")
    frames = list(video) and list(video)
    assert all(frame.interlaced_frame for frame in decoded) and not any(frame.yuv.interlaced_frame for frame in frames)
    assert [frame.pts_ns for frame in frames] == [round((each.pts - first) * base * 1_000_000_000) for each in decoded]
    before = np.mean([combed(each.to_ndarray(format="gray")) for each in decoded])
    after = np.mean([combed(frame.luma) for frame in frames])
    assert before > 5 and after < before / 5
    (record,) = caplog.records  # said once
    assert record.getMessage().startswith(f"--avatar {path}: it is interlaced; ")


def test_a_picture_of_a_few_lines_that_says_it_is_interlaced_is_read(tmp_path: Path):
    path = write_clip(tmp_path / "small.mp4", size=(64, 8), n=3, options={"x264-params": "tff=1"})
    assert len(list(VideoFile(path))) == 3


def test_damaged_bytes_are_passed_over(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    path = write_clip(tmp_path / "damaged.mkv", images=list(noise))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    frames = list(VideoFile(path))
    assert len(frames) > 10
    assert all(a.pts_ns < b.pts_ns for a, b in pairwise(frames))


def _missing(folder: Path) -> Path:
    return folder / "missing.mp4"


def _folder(folder: Path) -> Path:
    return folder


def _empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def _text(folder: Path) -> Path:
    (folder / "text.mp4").write_text("these are words, not pictures\n" * 100)
    return folder / "text.mp4"


def _plain_text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("these are words, not pictures\n" * 100)
    return folder / "notes.txt"


def _no_moov(folder: Path) -> Path:
    path = write_clip(folder / "cut.mp4", n=50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _sound_only(folder: Path) -> Path:
    soundfile.write(folder / "sound.wav", np.zeros(1600, np.float32), 16000)
    return folder / "sound.wav"


def _no_frames(folder: Path) -> Path:
    path = write_clip(folder / "frames.mkv", n=3)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])  # up to the first cluster
    return path


def _play_list(folder: Path) -> Path:
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile http://127.0.0.1:9/secret\n")
    return folder / "list.mp4"


@pytest.mark.parametrize("make", [_missing, _folder, _empty, _text, _plain_text, _no_moov, _sound_only, _no_frames, _play_list])
def test_what_is_not_a_video_is_refused_in_one_sentence(tmp_path: Path, make, capfd):
    path = make(tmp_path)
    with pytest.raises(UserError) as refusal:
        VideoFile(path, "--avatar")
    sentence = str(refusal.value)
    assert sentence.startswith(f"--avatar {path}") and "give a video" in sentence
    assert "\n" not in sentence
    assert capfd.readouterr() == ("", ""), "FFmpeg's own words"


def test_real_videos(data_path):
    with VideoFile(data_path("test/video/latentsync_demo1.mp4")) as video:
        assert (video.width, video.height, video.frame_rate, video.frames) == (1080, 1920, 25, 250)
        assert video.has_audio and video.duration_ns == 10_000_000_000
        for i, frame in zip(range(20), video, strict=False):
            assert frame.pts_ns == i * 40_000_000
            assert frame.image.shape == (1920, 1080, 3)
    flv = VideoFile(next(data_path("train/crema_d").glob("*.flv")))
    assert flv.frame_rate == NTSC and flv.has_audio
    assert all(b.pts_ns - a.pts_ns in (33_000_000, 34_000_000) for a, b in _pairs(flv))
    mpg = VideoFile(next(data_path("test/grid_unseen").glob("*.mpg")))
    assert mpg.frame_rate == 25
    assert all(b.pts_ns - a.pts_ns == 40_000_000 for a, b in _pairs(mpg))


def _pairs(video: VideoFile):
    frames = list(video)
    assert len(frames) > 50
    return pairwise(frames)


def test_the_whole_picture_agrees_with_the_reference_decoder(data_path):
    path = data_path("test/video/latentsync_demo1.mp4")
    with av.open(str(path)) as container:
        reference = next(container.decode(video=0)).to_ndarray(format="rgb24", src_colorspace="ITU709")
    ours = next(iter(VideoFile(path))).image
    assert np.abs(ours.astype(int) - reference).mean() < 2
