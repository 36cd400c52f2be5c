"""Recordings made while live: killed, out of disk, for hours; read back as a player would."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from clips import click_times, corners, read_corners
from hypothesis import given, settings
from hypothesis import strategies as st

from flashlips_edge.errors import UserError
from flashlips_edge.media.colour import planes
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.opening import decode
from flashlips_edge.media.recorder import Recorder
from flashlips_edge.media.video_file import VideoFile

SECOND_NS = 1_000_000_000
STEP_NS = 40_000_000
TICK_NS = SECOND_NS / 90_000
RATE_HZ = 48_000
WHITE, GREY = (Frame(np.full((48, 64, 3), level, np.uint8)) for level in (255, 60))


def speech(start_ns: int, n: int) -> np.ndarray:
    """float32 [n] from a media time on: a click each second."""
    position = round(start_ns * RATE_HZ / SECOND_NS) + np.arange(n)
    return (0.8 * (position % RATE_HZ < 240) * np.sin(2 * np.pi * 1000 * position / RATE_HZ)).astype(np.float32)


def picture(pts_ns: int, before_ns: int) -> Frame:
    """White if a second has begun since the last frame."""
    return (WHITE if pts_ns // SECOND_NS > before_ns // SECOND_NS else GREY).at(pts_ns)


def read(path: Path) -> tuple[list[float], list[float], np.ndarray]:
    """Seconds of each frame, their brightness, and the sound placed by its time stamps, float32 [N]; a packet cut off is passed over."""
    with av.open(str(path)) as container:
        pictures = decode(container, container.streams.video[0])
        frames = [(float(f.pts * f.time_base), planes(f)[0].mean()) for f in pictures]
    with av.open(str(path)) as container:
        sound = list(decode(container, container.streams.audio[0]))
    ends = [(f.pts + f.samples) / RATE_HZ for f in sound]
    assert all(f.pts / RATE_HZ == pytest.approx(end) for f, end in zip(sound[1:], ends, strict=False)), "the sound has gaps"
    samples = np.concatenate([np.zeros(max(0, sound[0].pts) if sound else 0, np.float32), *(f.to_ndarray()[0] for f in sound)])
    return [time for time, _ in frames], [grey for _, grey in frames], samples


def offsets_s(path: Path) -> list[float]:
    """How much later than its click each flash is."""
    times, greys, sound = read(path)
    heard = np.array(click_times(sound, RATE_HZ))
    seen = [time for time, grey in zip(times, greys, strict=True) if grey > 200]
    return [float(time - heard[np.abs(heard - time).argmin()]) for time in seen]


def record(path: Path, seconds: float, start_ns: int = 0) -> Path:
    with Recorder(path) as recorder:
        for i in range(round(seconds * 25)):
            pts_ns = start_ns + i * STEP_NS
            recorder.write(picture(pts_ns, pts_ns - STEP_NS))
            recorder.write_audio(speech(pts_ns, 1920), pts_ns)
    return path


def test_what_was_seen_and_heard_is_in_the_file(tmp_path: Path):
    path = tmp_path / "new folder" / "lobby.mp4"
    with Recorder(path) as recorder:
        for i in range(50):
            recorder.write(Frame(corners(), i * STEP_NS))
            recorder.write_audio(speech(i * STEP_NS, 1920), i * STEP_NS)
    video = VideoFile(path)
    assert (video.width, video.height, video.frame_rate, video.has_audio) == (64, 48, 25, True)
    assert video.duration_ns == pytest.approx(2 * SECOND_NS, abs=0.03 * SECOND_NS)
    frames = list(video)
    assert [frame.pts_ns for frame in frames] == [i * STEP_NS for i in range(50)]
    assert all(read_corners(frame.image) == ["top left", "top right", "bottom left", "bottom right"] for frame in frames)
    assert click_times(read(path)[2], RATE_HZ) == pytest.approx([0, 1], abs=0.001)
    with av.open(str(path)) as container:
        assert "synthesised by FlashLips Edge" in container.metadata["comment"]
        container.seek(1_900_000)
        assert next(container.decode(video=0)).time < 1.91, "a player can jump in it"


@settings(max_examples=10)
@given(st.lists(st.integers(1_000_000, 900_000_000), min_size=2, max_size=40), st.integers(0, 10**15), st.sampled_from([100, 480, 1024]))
def test_frames_at_any_times_keep_them(tmp_path_factory, steps: list[int], start_ns: int, block: int):
    path = tmp_path_factory.mktemp("vfr") / "out.mp4"
    times = [start_ns + int(t) for t in np.cumsum([0, *steps])]
    with Recorder(path) as recorder:
        heard = round(start_ns * RATE_HZ / SECOND_NS)
        for before_ns, pts_ns in pairwise([start_ns - SECOND_NS, *times]):
            recorder.write(picture(pts_ns, before_ns))
            while heard * SECOND_NS < pts_ns * RATE_HZ:
                recorder.write_audio(np.zeros(block, np.float32), round(heard * SECOND_NS / RATE_HZ))
                heard += block
    assert np.array(read(path)[0]) * SECOND_NS == pytest.approx(np.array(times) - start_ns, abs=TICK_NS)


def test_both_begin_with_the_first_frame(tmp_path: Path):
    """Sound from before it is left out; sound that came before the frame but belongs after it is kept."""
    path = tmp_path / "out.mp4"
    with Recorder(path) as recorder:
        for i in range(100):
            recorder.write_audio(speech(i * STEP_NS, 1920), i * STEP_NS)
        for i in range(95, 200):
            recorder.write(picture(i * STEP_NS, (i - 1) * STEP_NS))
            if i >= 100:
                recorder.write_audio(speech(i * STEP_NS, 1920), i * STEP_NS)
    times, greys, sound = read(path)
    assert times[0] == 0 and np.flatnonzero(np.array(greys) > 200).tolist() == [5, 30, 55, 80]
    assert click_times(sound, RATE_HZ) == pytest.approx([0.2, 1.2, 2.2, 3.2], abs=0.001)


def test_sound_is_not_hoarded_while_there_is_no_picture(tmp_path: Path):
    process = psutil.Process()
    with Recorder(tmp_path / "out.mp4") as recorder:
        before = process.memory_info().rss
        for i in range(300):
            recorder.write_audio(np.full(RATE_HZ, 0.1, np.float32), i * SECOND_NS)
        assert process.memory_info().rss - before < 20_000_000
        recorder.write(GREY.at(300 * SECOND_NS))


def test_sound_that_begins_late_is_silent_until_then(tmp_path: Path):
    path = tmp_path / "out.mp4"
    with Recorder(path) as recorder:
        for i in range(75):
            recorder.write(picture(i * STEP_NS, (i - 1) * STEP_NS))
            if i >= 30:
                recorder.write_audio(speech(i * STEP_NS, 1920), i * STEP_NS)
    assert click_times(read(path)[2], RATE_HZ) == pytest.approx([2], abs=0.001)


def test_missing_sound_is_silence_and_doubled_sound_is_cut(tmp_path: Path):
    path = tmp_path / "out.mp4"
    with Recorder(path) as recorder:
        for i in range(150):
            recorder.write(picture(i * STEP_NS, (i - 1) * STEP_NS))
            if not 30 <= i < 60:
                recorder.write_audio(speech(i * STEP_NS, 1920), i * STEP_NS)
            if i % 10 == 0:
                recorder.write_audio(speech((i - 1) * STEP_NS, 1920), (i - 1) * STEP_NS)
    assert click_times(read(path)[2], RATE_HZ) == pytest.approx([0, 1, 3, 4, 5], abs=0.001)


def test_a_frame_whose_time_does_not_rise_is_passed_over(tmp_path: Path):
    path = tmp_path / "out.mp4"
    with Recorder(path) as recorder:
        for time_s in (5, 6, 6, 4, 7):
            recorder.write(GREY.at(time_s * SECOND_NS))
    with av.open(str(path)) as container:
        assert [frame.time for frame in container.decode(video=0)] == [0, 1, 2]


def test_sound_and_picture_stay_together_and_memory_stays_level(tmp_path: Path):
    """Five minutes at 24.9 frames per second with frames missing, 12 hours after the start; the sound comes on its own."""
    path, random = tmp_path / "out.mp4", np.random.default_rng(0)
    start_ns, process = 12 * 3600 * SECOND_NS + 123_456_789, psutil.Process()
    heard = start_ns * RATE_HZ // SECOND_NS
    memory = []
    with Recorder(path) as recorder:
        before_ns = start_ns
        for i in range(5 * 60 * 249 // 10):
            pts_ns = start_ns + i * 10_000_000_000 // 249
            if random.random() > 0.05:
                recorder.write(picture(pts_ns, before_ns))
                before_ns = pts_ns
            while heard * SECOND_NS < pts_ns * RATE_HZ:
                heard_ns = heard * SECOND_NS // RATE_HZ
                recorder.write_audio(speech(heard_ns, 4800), heard_ns)
                heard += 4800
            if i % 250 == 249:
                memory.append(process.memory_info().rss)
    offsets = offsets_s(path)
    assert len(offsets) > 295
    first, last = np.mean(offsets[:50]), np.mean(offsets[-50:])
    assert abs(last - first) < 0.005, "no drift"
    assert -0.001 < min(offsets) and max(offsets) < 0.3, "a flash is in the first frame after its click"
    assert memory[-1] - memory[len(memory) // 2] < 4_000_000


RECORD = """
import sys
sys.path[:0] = [{tests!r}]
from test_recorder import STEP_NS, Recorder, picture, speech

recorder = Recorder({path!r})
for i in range(10**6):
    recorder.write(picture(i * STEP_NS, (i - 1) * STEP_NS))
    recorder.write_audio(speech(i * STEP_NS, 1920), i * STEP_NS)
    print(i * STEP_NS, flush=True)
"""


@pytest.mark.parametrize("at_s", [1, 2.5, 10, 37])
def test_a_killed_recording_plays_up_to_the_last_second(tmp_path: Path, at_s: float):
    path = tmp_path / "out.mp4"
    code = RECORD.format(path=str(path), tests=str(Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= at_s * SECOND_NS:
                break
        process.send_signal(signal.SIGKILL)
        killed_ns = max([int(line), *(int(rest) for rest in process.stdout.read().splitlines()[:-1])])
    assert process.returncode == -signal.SIGKILL
    times, _, sound = read(path)
    assert times == pytest.approx([i * 0.04 for i in range(len(times))], abs=0.001)
    assert times[-1] > killed_ns / SECOND_NS - 1
    assert len(sound) / RATE_HZ > killed_ns / SECOND_NS - 1
    assert np.abs(offsets_s(path)).max() < 0.002


def test_it_plays_whenever_a_write_breaks_off(tmp_path: Path, monkeypatch):
    """Every state of the file on the disk is looked at, each write of the system broken off in three places."""
    path, copy, lengths = tmp_path / "out.mp4", tmp_path / "copy.mp4", []
    pwrite = os.pwrite

    def look() -> None:
        shutil.copy(path, copy)
        try:
            lengths.append(read(copy)[0][-1])
        except av.FFmpegError:
            lengths.append(-1)

    def in_pieces(descriptor: int, data: bytes, position: int) -> int:
        for start, end in pairwise([0, *(len(data) // 8 * n for n in (1, 3, 6)), len(data)]):
            pwrite(descriptor, data[start:end], position + start)
            look()
        return len(data)

    monkeypatch.setattr(os, "pwrite", in_pieces)
    record(path, 3)
    played = [length for length in lengths if length >= 0]
    assert lengths[-len(played) :] == played == sorted(played), "once it plays it does not stop to"
    assert len(lengths) - len(played) < 8, "only the first piece is not yet a video"
    assert np.diff(played).max() <= 0.5 and played[0] < 0.5 and played[-1] == pytest.approx(2.96)


def noise() -> Iterator[Frame]:
    random = np.random.default_rng(0)
    for i in range(2000):
        yield Frame(random.integers(0, 255, (240, 320, 3), np.uint8), i * STEP_NS)


def fill(path: Path) -> None:
    """Record until the disk is full: one sentence, a file that plays up to there, and no second complaint."""
    written = 0
    recorder = Recorder(path)
    with pytest.raises(UserError) as refusal:
        for frame in noise():
            recorder.write(frame)
            recorder.write_audio(speech(frame.pts_ns, 1920), frame.pts_ns)
            written += 1
    sentence = str(refusal.value)
    assert sentence.startswith(f"recording {path}: it cannot be written: ") and sentence.endswith("; give another place")
    recorder.write(frame)
    recorder.write_audio(speech(0, 1920), 0)
    recorder.close()
    times, _, sound = read(path)
    assert times[-1] > (written - 1) * 0.04 - 1 and len(sound) / RATE_HZ > (written - 1) * 0.04 - 1
    assert times == pytest.approx([i * 0.04 for i in range(len(times))], abs=0.001)
    data, position = path.read_bytes(), 0
    while position < len(data):
        position += int.from_bytes(data[position : position + 4], "big")
    assert position == len(data), "it ends with a whole box"


def test_a_file_that_may_not_grow(tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, limits[1]))
    try:
        fill(tmp_path / "out.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path):
    with small_disk(tmp_path) as disk:
        fill(disk / "out.mp4")


def test_two_recorders_may_write_the_same_frames(tmp_path: Path):
    """Each with its own start, in a thread of its own."""
    frames = [Frame(corners(320, 240), i * STEP_NS) for i in range(100)]
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]

    def run(path: Path, first: int) -> None:
        with Recorder(path) as recorder:
            for frame in frames[first:]:
                recorder.write(frame)

    threads = [threading.Thread(target=run, args=(path, 10 * i)) for i, path in enumerate(paths)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(frame.yuv.pts is None for frame in frames), "nothing is written on a frame that others have too"
    for path, n in zip(paths, (100, 90), strict=True):
        with av.open(str(path)) as container:
            assert [frame.time for frame in container.decode(video=0)] == pytest.approx([i * 0.04 for i in range(n)])


def test_a_recording_is_never_written_over(tmp_path: Path):
    path = record(tmp_path / "out.mp4", 1)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"recording .*out\.mp4: it is there already; give a new name"):
        Recorder(path)
    assert path.read_bytes() == before


def test_no_frame_is_one_sentence_and_leaves_nothing(tmp_path: Path):
    recorder = Recorder(tmp_path / "out.mp4")
    recorder.write_audio(speech(0, 1920), 0)
    with pytest.raises(UserError, match=r"out\.mp4: no frame came, so nothing was written"):
        recorder.close()
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_other_places_and_names_are_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"recording .*cannot be written: .*; give another place"):
        Recorder(tmp_path / "file" / "out.mp4")
    with pytest.raises(UserError, match=r"recording .*must end in \.mp4, \.m4v or \.mov"):
        Recorder(tmp_path / "out.avi")


def test_another_size_is_refused_and_the_recording_kept(tmp_path: Path):
    recorder = Recorder(tmp_path / "out.mp4", Fraction(25))
    recorder.write(GREY)
    with pytest.raises(ValueError, match="32 x 48, the recording 64 x 48"):
        recorder.write(Frame(corners(32, 48), STEP_NS))
    recorder.close()
    assert len(list(VideoFile(tmp_path / "out.mp4"))) == 1
