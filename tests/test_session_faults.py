"""What goes wrong around a live session, each fault really caused, and what is seen and heard then. Frames always go on, never black."""

from __future__ import annotations

import ast
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import write_clip
from faces import HEIGHT, MOUTH, WIDTH, face, mouth_level, number_of, speech, write_faces
from mjpeg import Stream
from tiny_bundle import tiny_bundle
from watching import OPEN_LEVEL, RATE_HZ, Watcher, await_that

from flashlips_edge.errors import UserError
from flashlips_edge.live import sinks
from flashlips_edge.media import camera_feed, picture_watch
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.recorder import Recorder
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.pump.clock import MonotonicClock
from flashlips_edge.session import LipSync

SECOND_NS = 1_000_000_000
GAP_S = 2.0  # without a frame: on a machine that is busy with other tests; benchmarks/ measures what it is on one that is not
BLACK = 30  # mean brightness


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A folder with bundle/ and face.mp4."""
    folder = tmp_path_factory.mktemp("media")
    tiny_bundle(folder / "bundle")
    write_faces(folder / "face.mp4", 10)
    return folder


@pytest.fixture
def opened(media) -> Iterator[Callable[..., tuple[LipSync, Watcher]]]:
    """Opens sessions on the avatar, or as it is told, with a watcher that has seen the mouth at rest; they are closed at the end."""
    sessions = []

    def open_one(**words) -> tuple[LipSync, Watcher]:
        if "camera" not in words:
            words["avatar"] = media / "face.mp4"
        session = LipSync.open(media / "bundle", threads=1, **words)
        sessions.append(session)
        session.add_sink("watcher", watcher := Watcher(keep=40))
        watcher.await_frames(3)
        return session, watcher

    yield open_one
    for session in sessions:
        session.close()


def speaks(session: LipSync, watcher: Watcher) -> None:
    """Say something: the mouth opens and closes."""
    session.push_audio(speech(0.8), 16_000)
    session.say_silence()
    watcher.await_open()
    watcher.await_closed()


def went_on(watcher: Watcher) -> None:
    """Frames went on all the time, and none was black."""
    watcher.await_frames(3)
    assert watcher.longest_gap_s < GAP_S
    assert all(seen.mean > BLACK for seen in watcher.seen)


class Faces(Stream):
    """A camera before which somebody sits."""

    def __init__(self) -> None:
        super().__init__(frames_per_s=25)
        self.size = (WIDTH, HEIGHT)
        self.empty = False

    def picture(self, count: int) -> np.ndarray:
        if self.mode == "black":
            return super().picture(count)
        if self.empty:
            return np.full((*self.size[::-1], 3), 84 + count % 12, np.uint8)  # light that flickers a little
        image = cv2.resize(face(), self.size)
        image[4:28, 4:28] = 0 if self.mode == "frozen" else 10 + 20 * (count % 12)
        return image


@pytest.fixture
def quick_camera(monkeypatch):
    """What is noticed after seconds is noticed sooner."""
    for module, name, ns in (
        (camera_feed, "LOST_NS", SECOND_NS // 2),
        (camera_feed, "FIRST_BACKOFF_NS", SECOND_NS // 10),
        (picture_watch, "FROZEN_NS", SECOND_NS // 2),
        (picture_watch, "BLACK_NS", SECOND_NS // 4),
    ):
        monkeypatch.setattr(module, name, ns)


FAULTS = [("refuse", "lost"), ("hang", "lost"), ("frozen", "frozen"), ("black", "black")]


@pytest.mark.parametrize(("idle", "faults"), [(False, FAULTS), (True, FAULTS[::3])], ids=["last picture", "idle loop"])
def test_a_camera_that_fails_is_bridged_and_comes_back(opened, media, quick_camera, idle, faults):
    """Unplugged, silent, frozen, black; each time back again. The face speaks all the while."""
    with Faces() as camera:
        session, watcher = opened(camera=camera.url, idle=media / "face.mp4" if idle else None)
        for mode, state in faults:
            camera.mode = mode
            await_that(lambda state=state: session._face.feed.state == state, f"for the camera to be {state}")
            assert session.stats().problems["face"].startswith(f"--camera {camera.url}: ")
            speaks(session, watcher)
            camera.mode = "live"
            await_that(lambda: "face" not in session.stats().problems, "for the camera to come back")
        speaks(session, watcher)
        assert session._face.feed.reconnects == sum(state == "lost" for _, state in faults)
        went_on(watcher)


def test_somebody_who_has_left_is_not_brought_back_by_a_camera_that_fails(opened, quick_camera):
    with Faces() as camera:
        session, watcher = opened(camera=camera.url)
        speaks(session, watcher)
        camera.empty = True
        await_that(lambda: watcher.frames[-1].image.std() < 10, "for an empty room")
        watcher.await_frames(30)
        for mode, state in FAULTS[::3]:
            camera.mode = mode
            await_that(lambda state=state: session._face.feed.state == state, f"for the camera to be {state}")
            session.push_audio(speech(0.5), 16_000)
            watcher.await_frames(30)
            assert all(frame.image.std() < 10 for frame in watcher.frames)
            camera.mode = "live"
            await_that(lambda: "face" not in session.stats().problems, "for the camera to come back")
        camera.empty = False
        await_that(lambda: watcher.frames[-1].image.std() > 20, "for somebody to come")
        speaks(session, watcher)


def test_a_camera_of_another_size_is_fitted_into_the_frame(opened):
    with Faces() as camera:
        _, watcher = opened(camera=camera.url)
        camera.size = (240, 240)
        await_that(lambda: watcher.frames[-1].image[:, :30].mean() < BLACK, "for the borders")
        camera.size = (WIDTH, HEIGHT)
        await_that(lambda: watcher.frames[-1].image[:, :30].mean() > BLACK, "for the borders to go")
        assert all((frame.width, frame.height) == (WIDTH, HEIGHT) for frame in watcher.frames)
        went_on(watcher)


def changed(opened, folder: Path, picture: np.ndarray, n: int = 10) -> np.ndarray:
    """Which pixels, bool [H, W], of a camera's pictures a face that speaks changes."""
    path = write_faces(folder / "camera.mp4", n, image=picture)
    with VideoFile(path) as video:
        sources = {number_of(frame.image): frame.image for frame in video}
    session, watcher = opened(camera=str(path))
    session.push_audio(speech(1), 16_000)
    session.say_silence()
    touched = np.zeros(picture.shape[:2], bool)
    for _ in range(2):
        watcher.await_frames(18)
        for frame in watcher.frames:
            touched |= np.abs(frame.image.astype(int) - sources[number_of(frame.image)]).max(2) > 2
    went_on(watcher)
    return touched


def moved(image: np.ndarray, x: int, y: int = 0) -> np.ndarray:
    """Shifted; what comes in from outside is like the edge."""
    shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def extent(touched: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row, first and last column."""
    rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


def test_without_a_face_frames_pass_as_they_are(opened, tmp_path):
    assert not changed(opened, tmp_path, np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).any()


def test_a_face_that_is_gone_leaves_no_mouth_behind(opened, tmp_path):
    """From one picture to the next the face is gone, and comes back: nothing is painted where it was."""
    blank = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    pictures = [image.copy() for image in [face()] * 15 + [blank] * 15]
    session, watcher = opened(camera=str(write_clip(tmp_path / "camera.mp4", size=(WIDTH, HEIGHT), images=pictures)))
    session.push_audio(speech(3), 16_000)
    empty = spoken = 0
    for _ in range(3):
        watcher.await_frames(35)
        for frame in watcher.frames:
            if np.abs(frame.image[: HEIGHT // 4].astype(int) - 90).max() < 4:
                empty += 1
                assert np.abs(frame.image.astype(int) - 90).max() < 4
            else:
                spoken += mouth_level(frame.image) > OPEN_LEVEL
    assert empty > 10 and spoken > 10


def test_of_two_faces_one_speaks(opened, tmp_path):
    both = np.concatenate([face(3), face(5)], axis=1)
    touched = changed(opened, tmp_path, both)
    left, right = touched[:, :WIDTH].any(), touched[:, WIDTH:].any()
    assert left != right
    top, _, first, last = extent(touched)
    assert top > HEIGHT * 0.4 and last - first < WIDTH * 0.6


def test_a_face_in_profile_is_left_alone(opened, tmp_path):
    narrow = cv2.resize(face(), (WIDTH // 3, HEIGHT))
    profile = cv2.copyMakeBorder(narrow, 0, 0, WIDTH // 3, WIDTH - 2 * (WIDTH // 3), cv2.BORDER_REPLICATE)
    assert not changed(opened, tmp_path, profile).any()


@pytest.mark.parametrize("x", [-70, 150], ids=lambda x: f"{x} px")
def test_at_the_edge_only_the_mouth_changes(opened, tmp_path, x):
    touched = changed(opened, tmp_path, moved(face(), x))
    if touched.any():
        top, _, first, last = extent(touched)
        assert top > HEIGHT * 0.4 and first > WIDTH * 0.2 + x and last < WIDTH * 0.8 + x


def test_sound_that_runs_dry_goes_on_where_it_stopped(opened):
    session, watcher = opened()
    for _ in range(3):
        session.push_audio(speech(0.4), 16_000)
        watcher.await_open()
        watcher.await_closed()
    loud = np.abs(watcher.sound).max()
    assert 0.05 < loud <= 1
    went_on(watcher)


def test_what_is_not_a_number_is_silence_and_what_is_too_loud_is_cut(opened):
    session, watcher = opened()
    session.push_audio(np.full(16_000, np.nan, np.float32), 16_000)
    session.push_audio(np.full(16_000, np.inf, np.float32), 16_000)
    watcher.await_frames(20)
    assert not watcher.sound.any() and all(seen.closed for seen in watcher.seen)
    session.interrupt()
    loud = 40 * speech(1.5)
    loud[8_000:16_000] = 0  # cut, all its syllables are as loud: without a pause that is a machine's noise, not a voice
    session.push_audio(loud, 16_000)
    watcher.await_open()
    watcher.await_closed()
    assert np.isfinite(watcher.sound).all() and 0.9 < np.abs(watcher.sound).max() <= 1.5
    went_on(watcher)


def test_the_rate_may_change_within_a_sentence(opened):
    session, watcher = opened()
    for rate_hz in (16_000, 44_100, 8_000, 48_000):
        session.push_audio(speech(0.3, rate_hz), rate_hz)
    with pytest.raises(UserError, match="sample_rate_hz 7999 is out of range"):
        session.push_audio(speech(0.3), 7999)
    session.say_silence()
    watcher.await_open()
    watcher.await_closed()
    heard_s = np.count_nonzero(np.abs(watcher.sound[: len(watcher.sound) // 480 * 480]).reshape(-1, 480).max(1) > 0.003) * 0.01
    assert 1.0 < heard_s < 1.4


@contextmanager
def broken(session: LipSync, graph: str, fault: Exception | threading.Event) -> Iterator[None]:
    """A network that raises, or hangs until the event is set."""
    engine = session.networks.engine(graph)
    run = engine.run

    def fail(inputs: dict) -> dict:
        if isinstance(fault, threading.Event):
            fault.wait(60)
            return run(inputs)
        raise fault

    engine.run = fail
    try:
        yield
    finally:
        engine.run = run
        if isinstance(fault, threading.Event):
            fault.set()


ERRORS = [RuntimeError("the device is gone\nsomewhere"), MemoryError()]


@pytest.mark.parametrize("error", ERRORS, ids=["error", "out of memory"])
def test_a_picture_that_cannot_be_edited_is_shown_as_it_was_taken(opened, media, error):
    session, watcher = opened()
    with VideoFile(media / "face.mp4") as video:
        taken = [frame.image for frame in video]
    with broken(session, "editor", error):
        session.push_audio(speech(1), 16_000)
        await_that(lambda: "pictures" in session.stats().problems, "for the problem to be named")
        problem = session.stats().problems["pictures"]
        await_that(lambda: watcher.frames and min(apart(watcher.frames[-1].image, image) for image in taken) < 4, "for the bare picture")
    assert type(error).__name__ in problem and "shown as it was taken" in problem and "\n" not in problem
    session.interrupt()
    speaks(session, watcher)
    assert "pictures" not in session.stats().problems
    went_on(watcher)


def apart(image: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(image.astype(int) - other)[MOUTH].mean())


def test_a_picture_that_hangs_is_left_behind_and_the_next_ones_are_made(opened):
    session, watcher = opened()
    with broken(session, "editor", threading.Event()):
        session.push_audio(speech(30), 16_000)
        await_that(lambda: session.stats().restarts["pictures"] > 0, "for the watchdog")
        assert "gave no answer" in session.stats().problems["pictures"]
        watcher.await_frames(10)
    session.interrupt()
    speaks(session, watcher)
    await_that(lambda: session.healthy and "pictures" not in session.stats().problems)
    went_on(watcher)


@pytest.mark.parametrize("error", ERRORS, ids=["error", "out of memory"])
def test_speech_without_lips_is_heard_all_the_same(opened, error):
    session, watcher = opened()
    with broken(session, "audio_to_lips", error):
        session.push_audio(speech(1), 16_000)
        await_that(lambda: session.stats().restarts["speech"] > 0, "for the stage to start again")
        await_that(lambda: np.abs(watcher.sound).max() > 0.1, "for the sound")
    assert all(seen.closed for seen in watcher.seen)
    await_that(lambda: not session.stats().speaking)
    speaks(session, watcher)
    assert "speech" not in session.stats().problems
    went_on(watcher)


def test_speech_that_hangs_is_given_up_and_the_next_sentence_is_spoken(opened, caplog):
    session, watcher = opened()
    with broken(session, "speech_encoder", threading.Event()):
        session.push_audio(speech(1), 16_000)
        await_that(lambda: "speech hangs and is started again" in [record.message for record in caplog.records])
    await_that(lambda: np.abs(watcher.sound).max() > 0.1, "for the sound")
    await_that(lambda: not session.stats().speaking)
    speaks(session, watcher)
    assert "speech" not in session.stats().problems and session.healthy
    went_on(watcher)


class Suspended(MonotonicClock):
    """The clock of a machine that sleeps now and then."""

    asleep_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.asleep_ns


def test_a_machine_that_was_suspended_has_not_hung(opened, monkeypatch):
    monkeypatch.setattr(sinks, "SLOW_NS", 30 * SECOND_NS)
    clock, called, gate = Suspended(), threading.Event(), threading.Event()

    def look(frame: Frame) -> None:
        called.set()
        gate.wait(60)

    session, watcher = opened(clock=clock, on_frame=look)
    for worker in session._workers.values():
        worker._hang_ns = 30 * SECOND_NS  # these calls do take long
    assert called.wait(20)
    with broken(session, "editor", gate), broken(session, "speech_encoder", gate):
        session.push_audio(speech(1), 16_000)
        await_that(lambda: all(session._workers[name]._since_ns for name in ("pictures", "speech")), "for them to be at work")
        clock.asleep_ns = 3600 * SECOND_NS
        watcher.await_frames(30)  # the watchdog has looked several times
        assert set(session.stats().restarts.values()) == {0} and "callback" in session.sinks
    watcher.await_open()
    watcher.await_closed()
    assert session.stats().problems == {} and session.healthy


class Broken(Watcher):
    def write(self, frame: Frame) -> None:
        raise OSError("the screen\nis gone")


class BrokenTwice(Broken):
    def close(self) -> None:
        super().close()
        raise OSError("and it cannot be closed")


@pytest.mark.parametrize("kind", [Broken, BrokenTwice])
def test_a_sink_that_raises_is_closed_and_named(opened, kind):
    session, watcher = opened()
    session.add_sink("screen", screen := kind())
    await_that(lambda: "screen" in " ".join(session.stats().problems), "for the problem to be named")
    await_that(lambda: "sink screen" not in session.stats().counters, "for the sink to be removed")
    assert screen.closed.is_set() and "screen ended: the screen" in session.stats().problems.values()
    went_on(watcher)
    session.add_sink("screen", screen := Watcher())
    screen.await_frames(3)
    assert not session.stats().problems


def test_a_callback_that_never_returns_is_given_up(opened, monkeypatch):
    monkeypatch.setattr(sinks, "SLOW_NS", SECOND_NS)
    gate, frames = threading.Event(), []

    def hang(frame: Frame) -> None:
        frames.append(frame)
        gate.wait(60)

    session, watcher = opened(on_frame=hang)
    threads = threading.active_count()
    await_that(lambda: "took more than" in " ".join(session.stats().problems.values()), "for the problem to be named")
    await_that(lambda: "sink callback" not in session.stats().counters, "for the sink to be removed")
    watcher.await_frames(5)
    assert len(frames) == 1
    went_on(watcher)
    gate.set()
    await_that(lambda: threading.active_count() < threads, "for the thread to end once it can")


def test_a_sink_that_is_slow_loses_frames_and_holds_nobody_up(opened):
    gate = threading.Event()
    session, watcher = opened(on_frame=lambda frame: gate.wait(0.2))
    await_that(lambda: session.stats().counters["sink callback"].dropped > 5)
    assert session.stats().counters["sink watcher"].dropped == 0
    assert session.stats().problems == {}
    gate.set()
    went_on(watcher)


def test_a_disk_that_is_full_ends_the_recording_and_nothing_else(opened, tmp_path):
    session, watcher = opened()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        session.add_sink("file", Recorder(tmp_path / "out.mp4", session.frame_rate))
        session.push_audio(speech(10), 16_000)
        await_that(lambda: "file" in " ".join(session.stats().problems), "for the problem to be named")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    problem = " ".join(session.stats().problems.values())
    assert "out.mp4: it cannot be written" in problem
    assert length_s(tmp_path / "out.mp4") > 0
    went_on(watcher)


def length_s(path: Path) -> float:
    """Of a file whose pictures and sound decode to the end: the time of its last picture."""
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound_s = sum(frame.samples for frame in container.decode(audio=0)) / RATE_HZ
    assert abs(sound_s - times[-1]) < 1.2
    return times[-1]


RECORD = """
import sys
from flashlips_edge.interrupt import Interrupt
from flashlips_edge.media.recorder import Recorder
from flashlips_edge.session import LipSync

bundle, avatar, out = sys.argv[1:]
with Interrupt() as stop, LipSync.open(bundle, avatar=avatar, threads=1) as face:
    face.add_sink("file", Recorder(out, face.frame_rate))
    for frame in face.frames():
        print(frame.pts_ns, flush=True)
        if stop.requested:
            break
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_signal_while_recording_leaves_a_file_that_plays(media, tmp_path, number):
    out = tmp_path / "out.mp4"
    command = [sys.executable, "-c", RECORD, str(media / "bundle"), str(media / "face.mp4"), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first_ns = next(int(line) for line in process.stdout)
        last_ns = next(pts_ns for line in process.stdout if (pts_ns := int(line)) > first_ns + 5 * SECOND_NS // 2)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
        last_ns = max([last_ns, *(int(line) for line in rest.splitlines()[:-1])])
    assert process.returncode == (0 if number == signal.SIGTERM else -number), errors
    assert length_s(out) > (last_ns - first_ns) / SECOND_NS - (0.5 if number == signal.SIGTERM else 1.5)


def test_a_wall_clock_set_back_an_hour_changes_nothing(opened, monkeypatch):
    session, watcher = opened()
    true_time, true_time_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: true_time() - 3600)
    monkeypatch.setattr(time, "time_ns", lambda: true_time_ns() - 3600 * SECOND_NS)
    before_ns = session.stats().media_ns
    speaks(session, watcher)
    assert before_ns < session.stats().media_ns < before_ns + 60 * SECOND_NS
    went_on(watcher)


def test_nothing_that_runs_asks_for_the_wall_clock(repo):
    """But for the time stamps of the log, and of an engine that is built."""
    asked = set()
    for path in sorted((repo / "flashlips_edge").rglob("*.py")):
        place = path.relative_to(repo / "flashlips_edge")
        if place.parts[0] in ("training", "evaluation", "models"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            named = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            imported = {name.name for name in node.names} if isinstance(node, ast.ImportFrom) and node.module == "time" else set()
            if named.endswith(("time.time", "time.time_ns", "datetime.now")) or {"time", "time_ns"} & imported:
                asked.add(str(place))
    assert asked <= {"engines/build.py"}


def test_closing_while_everything_hangs(opened, media, quick_camera):
    """Networks, camera and callback hang; `close` leaves them behind, and they end when they can."""
    gate = threading.Event()
    threads = set(threading.enumerate())
    with Faces() as camera:
        session, watcher = opened(camera=camera.url, on_frame=lambda frame: gate.wait(60))
        camera.mode = "hang"
        with broken(session, "editor", gate), broken(session, "speech_encoder", gate):
            session.push_audio(speech(5), 16_000)
            await_that(lambda: session.stats().restarts["pictures"] and session.stats().restarts["speech"], "for both to hang")
            closing = threading.Thread(target=session.close)
            closing.start()
            closing.join(20)
            assert not closing.is_alive(), "close takes seconds"
            assert list(session.frames()) == [] and watcher.closed.is_set()
    await_that(lambda: not set(threading.enumerate()) - threads - {camera._thread}, "for what hung to end")


def test_a_session_that_is_dropped_by_many_readers_keeps_none_of_them(opened):
    session, watcher = opened()
    for _ in range(50):
        frames = session.frames()
        next(frames)
        frames.close()
    assert session._readers == []
    went_on(watcher)


def test_handles_stay_level_over_many_faults(opened):
    session, watcher = opened()
    watcher.await_frames(3)
    handles, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for i in range(10):
        session.add_sink(f"screen {i}", Broken())
        await_that(lambda i=i: f"sink screen {i}" not in session.stats().counters)
        session.push_audio(speech(0.2), 16_000)
        session.interrupt()
    await_that(lambda: threading.active_count() <= threads)
    assert len(os.listdir("/proc/self/fd")) <= handles
