"""A camera with every fault that cameras have, really caused: an MJPEG stream on loopback, a driver that hangs, a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import corners, read_corners, write_clip
from hypothesis import given
from hypothesis import strategies as st
from mjpeg import Stream

from flashlips_edge.errors import UserError
from flashlips_edge.media import camera_feed, capture
from flashlips_edge.media.camera_feed import CameraFeed
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.letterbox import letterbox
from flashlips_edge.pump.clock import SECOND_NS, ManualClock, MonotonicClock

STEP_NS = SECOND_NS // 4
UPRIGHT = ["top left", "top right", "bottom left", "bottom right"]


def until(condition: Callable[[], bool]) -> None:
    """Wait, in real time, until the threads have come that far."""
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not within 30 s")


@pytest.fixture
def stream() -> Iterator[Stream]:
    with Stream() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def feed(stream: Stream, clock: ManualClock) -> Iterator[CameraFeed]:
    with CameraFeed(stream.url, clock) as feed:
        yield feed
    until(lambda: not threads())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("--camera")]


def pass_time(feed: CameraFeed, clock: ManualClock, seconds: float) -> None:
    """Let time pass with frames coming: every quarter of a second has its own."""
    for _ in range(round(seconds * SECOND_NS / STEP_NS)):
        clock.advance(STEP_NS)
        come = feed.counters.entered
        until(lambda come=come: feed.counters.entered >= come + 2)


def take(feed: CameraFeed) -> Frame:
    """A frame that came after the call: what waited is put aside first."""
    feed.newest()
    found: list[Frame] = []
    until(lambda: bool(found) or ((frame := feed.newest()) is not None and found.append(frame) is None))
    return found[0]


def test_the_newest_frame_is_given_once_and_the_others_are_counted(feed: CameraFeed, stream: Stream):
    assert (feed.width, feed.height, feed.state, feed.problem) == (160, 120, "live", None)
    assert read_corners(take(feed).image) == UPRIGHT
    until(lambda: feed.counters.dropped > 10)
    feed.close()
    assert feed.newest() is None
    counters = feed.counters
    assert 0 <= counters.entered - counters.left - counters.dropped <= 1
    assert stream.requests == 1


@pytest.mark.parametrize("fault", ["cut", "hang"])
def test_a_lost_camera_is_named_and_comes_back(feed: CameraFeed, stream: Stream, clock: ManualClock, fault: str):
    take(feed)
    stream.mode = fault
    words = {"cut": "the stream ended", "hang": "no frame came for 2 s"}[fault]

    def lost() -> bool:
        if fault == "hang":
            clock.advance(STEP_NS)
        return feed.state == "lost"

    until(lost)
    assert feed.problem == f"--camera {stream.url}: {words}"
    stream.mode = "live"
    feed.newest()

    def back() -> bool:
        clock.advance(STEP_NS // 10)
        return feed.state == "live"

    until(back)
    assert feed.problem is None and feed.reconnects == 1 and stream.requests == 2
    assert read_corners(take(feed).image) == UPRIGHT
    assert feed.hung == (fault == "hang")


def test_a_camera_that_was_unplugged_comes_back_at_its_place(feed: CameraFeed, stream: Stream, clock: ManualClock):
    stream.__exit__(None, None, None)
    until(lambda: feed.state == "lost")

    def refused() -> bool:
        clock.advance(STEP_NS // 10)
        return "cannot be opened" in (feed.problem or "")

    until(refused)
    with Stream(port=stream.port):

        def back() -> bool:
            clock.advance(STEP_NS // 10)
            return feed.state == "live"

        until(back)
        assert read_corners(take(feed).image) == UPRIGHT


def test_attempts_become_rarer_up_to_ten_seconds(feed: CameraFeed, stream: Stream, clock: ManualClock):
    stream.mode = "refuse"
    until(lambda: feed.state == "lost")
    at_ns = [clock.now_ns()]
    while len(at_ns) < 8:
        known = stream.requests
        clock.advance(SECOND_NS // 20)
        threading.Event().wait(0.002)
        if stream.requests > known or stream.requests > len(at_ns):
            at_ns.append(clock.now_ns())
    gaps_s = np.diff(at_ns) / SECOND_NS
    assert (gaps_s >= [0.5, 1, 2, 4, 8, 10, 10]).all()
    assert gaps_s[-1] < 16, "it goes on doubling"


def test_a_frozen_picture_is_withheld_until_it_moves_again(feed: CameraFeed, stream: Stream, clock: ManualClock):
    stream.mode = "frozen"
    pass_time(feed, clock, 2)
    assert feed.state == "live" and feed.newest() is not None, "a quiet moment is no freeze"
    pass_time(feed, clock, 2)
    assert feed.state == "frozen"
    assert feed.problem == f"--camera {stream.url}: its picture has not changed for 3 s"
    feed.newest()
    dropped = feed.counters.dropped
    pass_time(feed, clock, 1)
    assert feed.newest() is None and feed.counters.dropped > dropped
    stream.mode = "live"
    take(feed)
    assert (feed.state, feed.problem, stream.requests) == ("live", None, 1)


def test_a_black_picture_never_comes_through(feed: CameraFeed, stream: Stream, clock: ManualClock):
    stream.mode = "black"
    seen = []
    for _ in range(8):
        pass_time(feed, clock, 0.25)
        frame = feed.newest()
        if frame is not None:
            seen.append(frame.image.mean())
    assert all(mean > 60 for mean in seen)
    assert feed.state == "black" and feed.newest() is None
    assert feed.problem == f"--camera {stream.url}: its picture has been black for 1 s"
    stream.mode = "live"
    assert take(feed).image.mean() > 60
    assert (feed.state, feed.problem, stream.requests) == ("live", None, 1)


def test_another_size_is_put_into_the_first_without_a_restart(feed: CameraFeed, stream: Stream):
    stream.size = (320, 120)
    boxed = None
    while boxed is None or boxed.image[:20].mean() > 20:
        boxed = take(feed)
        assert (boxed.width, boxed.height) == (160, 120)
    assert boxed.image[:28].max() < 30 and boxed.image[-28:].max() < 30, "borders above and below"
    assert read_corners(boxed.image[30:90]) == UPRIGHT
    assert stream.requests == 1 and feed.state == "live"


class HangingDriver:
    """As OpenCV's capture: one picture, then a read that does not come back while `plugged` is not set."""

    opened = 0

    def __init__(self, plugged: threading.Event, source: int):
        HangingDriver.opened += 1
        self.plugged, self.read_once = plugged, HangingDriver.opened > 1

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.read_once:
            assert self.plugged.wait(60)
            return False, None
        self.read_once = True
        return True, corners()[:, :, ::-1]

    def release(self) -> None:
        pass


def test_a_driver_that_hangs_hangs_nobody_else(monkeypatch, clock: ManualClock):
    plugged = threading.Event()
    monkeypatch.setattr(HangingDriver, "opened", 0)
    monkeypatch.setattr(capture.cv2, "VideoCapture", lambda source: HangingDriver(plugged, source))
    monkeypatch.setattr(camera_feed, "CLOSE_NS", SECOND_NS // 10)
    feed = CameraFeed(0, clock)
    assert read_corners(take_first(feed).image) == UPRIGHT and feed.frame_rate == 25

    def more_hang() -> bool:
        clock.advance(SECOND_NS)
        return feed.hung == camera_feed.HANGING

    until(more_hang)
    for _ in range(100):
        clock.advance(SECOND_NS)
        threading.Event().wait(0.002)
    assert HangingDriver.opened == camera_feed.HANGING, "no more threads than that are left behind"
    assert feed.state == "lost" and "no frame came" in (feed.problem or "")
    feed.close()
    plugged.set()
    until(lambda: not threads())


def take_first(feed: CameraFeed) -> Frame:
    frame = feed.newest()
    assert frame is not None
    return frame


def test_a_file_plays_as_a_camera_at_its_own_pace_over_and_over(tmp_path: Path, clock: ManualClock):
    images = [np.full((48, 64, 3), 60 + 20 * i, np.uint8) for i in range(5)]
    path = write_clip(tmp_path / "face.mp4", images=images, frame_rate=Fraction(10))
    with CameraFeed(str(path), clock) as feed:
        assert (feed.width, feed.height, feed.frame_rate) == (64, 48, 10)
        seen = [take_first(feed)]
        for _ in range(12):
            clock.advance(SECOND_NS // 10)
            seen.append(take(feed))
    assert [round((frame.image.mean() - 60) / 20) for frame in seen] == [i % 5 for i in range(13)]
    assert [frame.pts_ns for frame in seen] == [i * SECOND_NS // 10 for i in range(13)]
    assert not threads()


def test_a_file_that_goes_away_is_lost_and_found_again(tmp_path: Path):
    path = write_clip(tmp_path / "face.mp4", n=3, frame_rate=Fraction(100))
    other = path.with_name("elsewhere.mp4")
    with CameraFeed(str(path), MonotonicClock()) as feed:
        path.rename(other)
        until(lambda: feed.state == "lost")
        assert feed.problem == f"--camera {path}: there is no such file; give a video: mp4, mov, mkv, webm, avi, flv, mpg, or a picture"
        other.rename(path)
        until(lambda: feed.state == "live")


@pytest.mark.parametrize("source", ["97", "/dev/video97", "front door", "http://127.0.0.1:9/", __file__])
def test_no_first_frame_is_one_sentence_and_leaves_no_thread(source: str, capfd):
    with pytest.raises(UserError) as refusal:
        CameraFeed(source, MonotonicClock())
    assert str(refusal.value).startswith(f"--camera {source}: ") and "give" in str(refusal.value) and "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")
    until(lambda: not threads())


def test_a_stream_s_password_is_told_to_nobody(stream: Stream):
    """What is wrong with a camera stands in logs, on the page and at /healthz."""
    told: list[str] = []
    with CameraFeed(stream.url.replace("http://", "http://ada:secret@"), MonotonicClock()) as feed:
        told += [thread.name for thread in threading.enumerate()]
        stream.mode = "refuse"
        until(lambda: feed.state == "lost")
        told.append(feed.problem or "")
    for source in ("http://ada:secret@127.0.0.1:9/", "rtspx://ada:secret@127.0.0.1/", "http://127.0.0.1:9/?user=ada&password=secret"):
        with pytest.raises(UserError) as refusal:
            CameraFeed(source, MonotonicClock())
        told.append(str(refusal.value))
    assert feed.problem.startswith(f"--camera {stream.url}: ") and all("127.0.0.1:9/" in words for words in (told[-3], told[-1]))
    assert not [words for words in told if "ada" in words or "secret" in words]


def test_a_driver_error_reaches_the_caller(monkeypatch):
    def broken(source: int) -> cv2.VideoCapture:
        raise RuntimeError("planted")

    monkeypatch.setattr(capture.cv2, "VideoCapture", broken)
    with pytest.raises(RuntimeError, match="planted"):
        CameraFeed(0, MonotonicClock())


SIZES = st.tuples(st.integers(16, 400), st.integers(16, 400))


@given(SIZES, SIZES)
def test_any_size_fits_into_any_other_with_its_proportions(size: tuple[int, int], into: tuple[int, int]):
    frame = Frame(np.full((size[1], size[0], 3), (200, 180, 60), np.uint8), 7)
    boxed = letterbox(frame, *into)
    assert (boxed.width, boxed.height, boxed.pts_ns) == (*into, 7)
    bright = boxed.luma > 100
    height, width = int(bright.any(1).sum()), int(bright.any(0).sum())
    scale = min(into[0] / size[0], into[1] / size[1])
    assert abs(width - size[0] * scale) <= 2 and abs(height - size[1] * scale) <= 2
    assert bright.sum() == width * height, "one rectangle"
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    assert abs(rows[0] - (into[1] - 1 - rows[-1])) <= 4 and abs(columns[0] - (into[0] - 1 - columns[-1])) <= 4, "in the middle"
    if min(width, height) >= 8:  # else its chroma is all border
        middle = boxed.image[rows[0] + height // 2, columns[0] + width // 2].astype(int)
        assert np.abs(middle - (200, 180, 60)).max() < 6
