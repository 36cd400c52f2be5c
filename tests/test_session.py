"""The embedding API, with real threads, on a rendered face and a bundle whose arithmetic is known: loud speech makes the mouth bright."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from faces import HEIGHT, WIDTH, number_of, speech, write_faces
from tiny_bundle import tiny_bundle
from watching import RATE_HZ, Watcher, await_that

from flashlips_edge import prepare
from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame
from flashlips_edge.session import LipSync

FRAME_NS = 40_000_000
AVATAR = "flashlips_edge/assets/avatar.mp4"


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A folder with bundle/ and face.mp4."""
    folder = tmp_path_factory.mktemp("media")
    tiny_bundle(folder / "bundle")
    write_faces(folder / "face.mp4", 10)
    return folder


@pytest.fixture
def opened(media) -> Iterator[Callable[..., LipSync]]:
    """Opens sessions on the avatar, or as it is told; they are closed at the end."""
    sessions = []

    def open_one(**words) -> LipSync:
        if "camera" not in words:
            words = {"avatar": media / "face.mp4", **words}
        sessions.append(LipSync.open(media / "bundle", **{"threads": 1, **words}))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()


@pytest.fixture
def session(opened) -> LipSync:
    return opened()


@pytest.fixture
def watcher(session) -> Watcher:
    """Sees and hears the session; it has seen the mouth at rest."""
    watcher = Watcher()
    session.add_sink("watcher", watcher)
    watcher.await_frames(3)
    return watcher


def test_frames_flow_at_the_avatars_rate(session):
    assert (session.width, session.height, session.frame_rate, session.sample_rate_hz) == (WIDTH, HEIGHT, Fraction(25), RATE_HZ)
    frames = [frame for frame, _ in zip(session.frames(), range(40))]
    times = [frame.pts_ns for frame in frames]
    assert all(b > a and (b - a) % FRAME_NS == 0 for a, b in pairwise(times)), "each at a tick of its own"
    assert len({number_of(frame.image) for frame in frames}) > 5, "the recording is seen"
    assert frames[0].image.shape == (HEIGHT, WIDTH, 3) and frames[0].image.dtype == np.uint8


def test_the_mouth_moves_with_the_speech_and_is_closed_in_silence(session, watcher):
    session.push_audio(speech(1.2), 16_000)
    session.say_silence()
    watcher.await_open()
    watcher.await_closed()
    assert all(seen.closed for seen in watcher.await_frames(15)), "and it stays closed"


def test_the_mouth_moves_when_the_sound_is_heard(session, watcher):
    """Picture and sound carry media time: a syllable's loud part lies under the bright mouth."""
    session.push_audio(speech(1.0), 16_000)
    session.say_silence()
    watcher.await_open()
    watcher.await_closed()
    loud = np.flatnonzero(np.abs(watcher.sound) > 0.01) + watcher.blocks[0][1] * RATE_HZ // 10**9
    heard_s = loud[0] / RATE_HZ, loud[-1] / RATE_HZ
    seen_s = [seen.pts_ns / 1e9 for seen in watcher.seen if seen.open]
    assert heard_s[0] - 0.25 < seen_s[0] < heard_s[0] + 0.15
    assert heard_s[1] - 0.15 < seen_s[-1] < heard_s[1] + 0.25


@pytest.mark.parametrize(("rate_hz", "channels", "kind"), [(48_000, 1, np.float32), (16_000, 1, np.int16), (44_100, 2, np.float32)])
def test_what_is_pushed_is_heard_once_and_whole(session, watcher, rate_hz, channels, kind):
    seconds = 0.8
    sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate_hz)) / rate_hz).astype(np.float32)
    pcm = (sound * 32767).astype(np.int16) if kind is np.int16 else sound
    pcm = pcm if channels == 1 else np.repeat(pcm[:, None], channels, axis=1)
    for piece in np.array_split(pcm, 7):
        session.push_audio(piece, rate_hz)
    session.say_silence()
    start = session.stats().media_ns
    await_that(lambda: session.stats().media_ns > start + 2.5e9)
    heard = watcher.sound
    loud = np.flatnonzero(np.abs(heard) > 0.01)
    heard = heard[loud[0] : loud[-1] + 1]
    assert len(heard) == pytest.approx(seconds * RATE_HZ, rel=0.01)
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / RATE_HZ)
    lag = max(range(-60, 60), key=lambda lag: float(np.dot(np.roll(expected, lag)[2000:-2000], heard[2000:-2000])))
    assert np.abs(np.roll(expected, lag) - heard)[2000:-2000].max() < 0.03


def test_an_interruption_silences_and_closes_the_mouth(session, watcher):
    session.push_audio(speech(10), 16_000)
    watcher.await_open()
    session.interrupt()
    now_ns = session.stats().media_ns
    assert session.stats().epoch == session.epoch == 1
    await_that(lambda: watcher.seen[-1].pts_ns > now_ns + 2_000_000_000)
    late = [seen for seen in watcher.seen if seen.pts_ns > now_ns + 400_000_000]
    assert late and all(seen.closed for seen in late)
    first = watcher.blocks[0][1]
    rest_of_sound = watcher.sound[(now_ns + 200_000_000 - first) * RATE_HZ // 10**9 :]
    assert len(rest_of_sound) and not rest_of_sound.any()
    assert not session.stats().speaking
    session.push_audio(speech(1), 16_000)
    watcher.await_open()


def test_it_speaks_until_its_sound_has_been_heard(session, watcher):
    session.push_audio(speech(1.5), 16_000)
    session.say_silence()
    await_that(lambda: session.stats().speaking)
    await_that(lambda: not session.stats().speaking)
    heard_s = np.count_nonzero(np.abs(watcher.sound).reshape(-1, 480).max(1) > 0.001) * 0.01
    assert heard_s > 1.4


def test_the_mouth_closes_by_itself_when_no_more_is_pushed(session, watcher):
    session.push_audio(speech(0.6), 16_000)
    watcher.await_open()
    watcher.await_closed()
    await_that(lambda: not session.stats().speaking)


def test_sound_that_is_never_pushed_opens_no_mouth(session, watcher):
    noise = np.random.default_rng(0).normal(0, 0.001, 16_000).astype(np.float32)
    session.push_audio(noise, 16_000)
    session.say_silence()
    assert all(seen.closed for seen in watcher.await_frames(40))


def test_several_readers_each_get_frames(session):
    slow, quick = session.frames(), session.frames()
    first = next(slow)
    times = [next(quick).pts_ns for _ in range(20)]
    assert len(set(times)) == 20
    assert next(slow).pts_ns > first.pts_ns
    newest = next(slow)
    assert newest.pts_ns >= times[-1] - FRAME_NS, "who comes late gets the newest, not the old ones"


def test_frames_for_asyncio(session):
    async def read(count: int) -> list[int]:
        times = []
        async for frame in session.aframes():
            times.append(frame.pts_ns)
            if len(times) == count:
                return times
        return times

    async def read_twice() -> list[list[int]]:
        return await asyncio.wait_for(asyncio.gather(read(10), read(15)), 30)

    one, two = asyncio.run(read_twice())
    assert len(set(one)) == 10 and len(set(two)) == 15


def test_readers_end_when_the_session_does(session):
    seen: list[Frame] = []
    thread = threading.Thread(target=lambda: seen.extend(session.frames()))
    thread.start()
    await_that(lambda: session.stats().counters["show"].left > 5)

    async def read() -> int:
        asyncio.get_running_loop().call_later(0.3, lambda: threading.Thread(target=session.close).start())
        return len([frame async for frame in session.aframes()])

    assert asyncio.run(asyncio.wait_for(read(), 30)) > 0
    thread.join(30)
    assert not thread.is_alive() and len(seen) > 0
    assert list(session.frames()) == []


def test_a_callback_is_given_every_frame(opened):
    frames: list[Frame] = []
    session = opened(on_frame=frames.append)
    await_that(lambda: len(frames) > 20)
    assert all(b.pts_ns > a.pts_ns for a, b in pairwise(frames[:20]))
    assert session.stats().counters["sink callback"].left > 20


def test_a_callback_may_close_the_session(opened):
    sessions: list[LipSync] = []
    ready = threading.Event()

    def close(frame: Frame) -> None:
        if ready.wait(20):
            sessions[0].close()

    sessions.append(opened(on_frame=close))
    ready.set()
    await_that(lambda: list(sessions[0].frames()) == [])


def test_sinks_come_and_go(session):
    first, second = Watcher(), Watcher()
    session.add_sink("first", first)
    with pytest.raises(ValueError, match="there is a sink 'first' already"):
        session.add_sink("first", second)
    first.await_frames(3)
    session.add_sink("second", second)
    second.await_frames(3)
    assert session.remove_sink("first") is None
    assert first.closed.is_set()
    count = len(first.seen)
    second.await_frames(5)
    assert len(first.seen) == count
    assert session.remove_sink("nobody") is None
    session.add_sink("first", Watcher())


def test_clips_are_played_once_and_then_the_idle_loop_again(media, tmp_path, opened):
    write_faces(tmp_path / "nod.mp4", 30)
    prepare.prepare(media / "face.mp4", {"nod": tmp_path / "nod.mp4"}, tmp_path / "avatar", "Ada", media / "bundle", threads=1)
    session = opened(avatar=tmp_path / "avatar")
    assert session.clips == ("idle", "nod") and session.clip == "idle"
    session.play("nod")
    await_that(lambda: session.clip == "nod")
    await_that(lambda: session.clip == "idle")
    with pytest.raises(UserError, match="clip 'dance': this avatar has idle, nod"):
        session.play("dance")


def test_two_sessions_share_their_networks_and_keep_their_words_apart(opened):
    one, two = opened(), opened()
    assert one.networks.engine("editor") is two.networks.engine("editor")
    watchers = Watcher(), Watcher()
    for session, watcher in zip((one, two), watchers):
        session.add_sink("watcher", watcher)
        watcher.await_frames(3)
    one.push_audio(speech(1), 16_000)
    watchers[0].await_open()
    one.close()
    watchers[1].await_frames(10)
    assert all(seen.closed for seen in watchers[1].seen) and not watchers[1].sound.any()


def test_stats_say_what_happens(session, watcher):
    session.push_audio(speech(1), 16_000)
    await_that(lambda: session.stats().gauges["latency_ms_p50"] > 0)
    before = session.stats()
    watcher.await_frames(5)
    after = session.stats()
    assert after.media_ns > before.media_ns and after.problems == {} and not any(after.restarts.values())
    assert after.level in range(4)  # by how busy this machine is
    assert after.counters["show"].left > before.counters["show"].left
    assert after.counters["sound in"].entered == 1
    assert after.gauges["threads"] == threading.active_count()
    assert 0 < after.gauges["first_frame_ms"] and 0 < after.gauges["frame_gap_ms_max"]
    assert session.healthy and session.stuck == ()


def test_a_video_stands_in_for_a_camera(media, opened):
    session = opened(camera=str(media / "face.mp4"))
    watcher = Watcher(keep=30)
    session.add_sink("watcher", watcher)
    watcher.await_frames(20)
    assert len({number_of(frame.image) for frame in watcher.frames}) > 3
    session.push_audio(speech(1), 16_000)
    watcher.await_open()
    watcher.await_closed()
    with pytest.raises(UserError, match="a camera has no clips"):
        session.play("idle")
    assert session.clips == () and session.clip is None


def test_close_leaves_nothing_behind(opened):
    opened().close()  # what the process loads once
    process, threads = psutil.Process(), set(threading.enumerate())
    handles, files = process.num_fds(), {file.path for file in process.open_files()}
    session = opened(on_frame=lambda frame: None)
    session.add_sink("watcher", watcher := Watcher())
    watcher.await_frames(3)
    session.push_audio(speech(5), 16_000)
    session.close()
    assert watcher.closed.is_set()
    assert set(threading.enumerate()) == threads
    assert process.num_fds() == handles and {file.path for file in process.open_files()} == files
    session.close()


def test_a_closed_session_says_so_in_one_sentence(session):
    session.close()
    calls = {
        "push_audio": lambda: session.push_audio(speech(1), 16_000),
        "say_silence": session.say_silence,
        "interrupt": session.interrupt,
        "play": lambda: session.play("idle"),
        "add_sink": lambda: session.add_sink("watcher", Watcher()),
    }
    for name, call in calls.items():
        with pytest.raises(UserError) as refusal:
            call()
        assert str(refusal.value) == f"{name}: this session is closed"
    assert session.remove_sink("watcher") is None
    assert not session.healthy and session.stats().media_ns > 0


@pytest.mark.parametrize("end", ["session.close()", "pass", "sys.exit()"], ids=["closed", "left open", "exit"])
def test_a_program_that_ends_while_networks_load_ends_well(repo, end):
    """With the shipped networks, which take a second to load; ONNX Runtime crashes an interpreter that ends meanwhile."""
    code = f"import sys; from flashlips_edge.session import LipSync; session = LipSync.open(avatar={str(repo / AVATAR)!r}); {end}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("pcm", "rate_hz", "sentence"),
    [
        (np.zeros(100, np.float32), 100, "sample_rate_hz 100 is out of range: 8000 to 192000"),
        (np.zeros(100, np.float32), 0, "sample_rate_hz 0 is out of range"),
        (np.zeros(100, np.int32), 16_000, "pcm is int32; give int16, or float32 in -1 to 1"),
        (np.zeros((2, 2, 2), np.float32), 16_000, r"pcm has shape \[2, 2, 2\]; give \[n\] or \[n, channels\], 8 channels at most"),
        (np.zeros((2, 100), np.float32), 16_000, r"pcm has shape \[2, 100\]; give \[n\] or \[n, channels\]"),
        (np.zeros(16_000 * 301, np.float32), 16_000, "301 s more were pushed; 300 s may wait"),
    ],
    ids=["rate", "no rate", "type", "shape", "channels first", "too much"],
)
def test_sound_that_cannot_be_is_refused_and_nothing_else_happens(session, watcher, pcm, rate_hz, sentence):
    with pytest.raises(UserError, match=f"push_audio: .*{sentence}"):
        session.push_audio(pcm, rate_hz)
    watcher.await_frames(3)
    assert session.stats().problems == {} and not watcher.sound.any()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"avatar": None}, "give either an avatar or a camera"),
        ({"camera": "0", "avatar": "face.mp4"}, "give either an avatar or a camera, not both"),
        ({"idle": "idle.mp4"}, "idle idle.mp4 stands in for a camera"),
        ({"avatar": "missing.mp4"}, "missing.mp4"),
        ({"camera": "/dev/none"}, "there is no such device"),
        ({"avatar": "a folder"}, "a folder"),
    ],
    ids=["neither", "both", "idle", "no file", "no camera", "no folder"],
)
def test_what_cannot_be_opened_is_one_sentence(opened, words, sentence):
    threads = set(threading.enumerate())
    with pytest.raises(UserError, match=sentence) as refusal:
        opened(**words)
    assert "\n" not in str(refusal.value)
    assert set(threading.enumerate()) == threads
