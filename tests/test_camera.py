"""Cameras: an MJPEG stream on loopback stands in for one; cameras that are not there, go away, or hang."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from clips import read_corners
from mjpeg import Stream

from flashlips_edge.errors import UserError
from flashlips_edge.media import camera as camera_module
from flashlips_edge.media import capture
from flashlips_edge.media.camera import Camera
from flashlips_edge.pump.clock import SECOND_NS, MonotonicClock


@pytest.fixture
def stream(request) -> Iterator[Stream]:
    with Stream(**{"frames_per_s": 0, **getattr(request, "param", {})}) as server:
        yield server


def test_frames_of_a_stream_come_upright_and_in_time(stream: Stream, capfd):
    clock = MonotonicClock()
    with Camera(stream.url, clock) as camera:
        frames = [frame for frame, _ in zip(camera, range(10), strict=False)]
    assert (camera.width, camera.height) == (160, 120)
    times = [frame.pts_ns for frame in frames]
    assert times == sorted(set(times)) and times[-1] <= clock.now_ns()
    for frame in frames:
        assert read_corners(frame.image) == ["top left", "top right", "bottom left", "bottom right"]
    assert camera.lost is None
    assert capfd.readouterr() == ("", "")


class CountingClock(MonotonicClock):
    """Sets `many` once the time has been asked for often: each frame that arrives asks."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.many = 0, threading.Event()

    def now_ns(self) -> int:
        self.asked += 1
        if self.asked == 60:
            self.many.set()
        return super().now_ns()


def read_count(image: np.ndarray) -> float:
    return float(np.median(image[55:65, 75:85]))


def test_a_slow_reader_gets_the_newest_frame_and_the_rest_is_counted(stream: Stream):
    clock = CountingClock()
    with Camera(stream.url, clock) as camera:
        frames = iter(camera)
        first = read_count(next(frames).image)
        assert clock.many.wait(30)
        next(frames)
        second = read_count(next(frames).image)
    assert second - first > 20
    assert camera.counters.dropped > 20
    assert camera.counters.entered >= camera.counters.left + camera.counters.dropped


@pytest.mark.parametrize("stream", [{"n": 30}], indirect=True)
def test_the_end_of_the_stream_is_noticed(stream: Stream):
    with Camera(stream.url) as camera:
        frames = list(camera)
    assert frames
    assert camera.lost == f"--camera {stream.url}: the stream ended"


@pytest.mark.parametrize("stream", [{"hang_after": 30}], indirect=True)
def test_a_stream_that_hangs_is_lost_after_its_deadline(stream: Stream, monkeypatch):
    for module in (camera_module, capture):
        monkeypatch.setattr(module, "READ_NS", SECOND_NS)
    with Camera(stream.url) as camera:
        assert list(camera)
    assert camera.lost in (
        f"--camera {stream.url}: no frame came for 1 s",
        f"--camera {stream.url}: the stream ended",
    )


def test_close_from_another_thread_ends_the_iteration(stream: Stream):
    camera = Camera(stream.url)
    for _ in camera:
        threading.Thread(target=camera.close).start()
    assert camera.lost is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("97", "cannot be opened, tried"),
        (97, "cannot be opened, tried"),
        ("/dev/video97", "there is no such device"),
        ("front door", "there is no such device"),
        ("-1", "there is no such device"),
        ("", "there is no such device"),
        (__file__, "this is a file"),
        ("http://127.0.0.1:9/", "cannot be opened, tried FFmpeg"),
    ],
)
def test_a_camera_that_is_not_there_is_one_sentence(source, words: str, capfd):
    with pytest.raises(UserError) as refusal:
        Camera(source)
    sentence = str(refusal.value)
    assert sentence.startswith(f"--camera {source}") and words in sentence and "give" in sentence
    assert "\n" not in sentence
    assert capfd.readouterr() == ("", ""), "OpenCV's own words"


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    for module in (camera_module, capture):
        monkeypatch.setattr(module, "OPEN_NS", SECOND_NS)
    refused = pytest.raises(UserError, match=r"it gave no frame in 1 s|cannot be opened")
    with socket.create_server(("127.0.0.1", 0)) as server, refused:
        Camera(f"http://127.0.0.1:{server.getsockname()[1]}/")


def test_a_page_that_is_no_stream_is_refused():
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>no camera here</html>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="cannot be opened"):
            Camera(f"http://127.0.0.1:{server.server_address[1]}/")
        server.shutdown()


@pytest.mark.skipif(not os.path.exists("/dev/video0"), reason="no camera on this machine")
def test_a_real_camera():
    with Camera(0) as camera:
        assert next(iter(camera)).image.shape == (camera.height, camera.width, 3)
