"""Clips of a rendered face for tests, and a camera on loopback that shows them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import soundfile
from clips import write_clip

from flashlips_edge.training.synthetic_head import Identity, Lips, Pose, render

WIDTH, HEIGHT = 320, 240
COUNTER = (slice(4, 28), slice(4, 28))  # a grey square far from the face; its level tells the frame's number
MOUTH = (slice(165, 195), slice(140, 180))
LEVELS = 12  # frame numbers that the square tells apart


@lru_cache
def face(seed: int = 3) -> np.ndarray:
    """uint8 RGB [240, 320, 3]: a face that the cascade finds."""
    return render(Identity.from_seed(seed), Pose(), Lips(jaw=0.3), (HEIGHT, WIDTH))


def numbered(n: int, image: np.ndarray | None = None) -> list[np.ndarray]:
    """n pictures of a face, each with its number in the corner."""
    pictures = []
    for number in range(n):
        picture = (face() if image is None else image).copy()
        picture[COUNTER] = 10 + 20 * (number % LEVELS)
        pictures.append(picture)
    return pictures


def number_of(image: np.ndarray) -> int:
    """The number in a picture's corner."""
    return round((float(image[COUNTER][6:-6, 6:-6].mean()) - 10) / 20)


def mouth_level(image: np.ndarray) -> float:
    """Mean brightness where the mouth is."""
    return float(image[MOUTH].mean())


def write_faces(
    path: Path, n: int = 10, rate: Fraction | int = 25, sound: np.ndarray | None = None, image: np.ndarray | None = None
) -> Path:
    """A video of n numbered pictures, nearly lossless; the picture's size is kept, be it odd."""
    pictures = numbered(n, image)
    height, width = pictures[0].shape[:2]
    pixels = "yuv444p" if width % 2 or height % 2 else "yuv420p"
    return write_clip(
        path, size=(width, height), frame_rate=Fraction(rate), images=pictures, sound=sound, pixels=pixels, options={"crf": "8"}
    )


def speech(seconds: float, rate_hz: int = 16_000) -> np.ndarray:
    """float32 [N]: syllables of a buzzing voice, four a second, loud enough to be no silence."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 25))
    return (0.2 * voice * (0.55 - 0.45 * np.cos(2 * np.pi * 4 * time))).astype(np.float32)


def write_speech(path: Path, seconds: float, rate_hz: int = 16_000) -> Path:
    soundfile.write(path, speech(seconds, rate_hz), rate_hz)
    return path


@contextmanager
def camera(pictures: list[np.ndarray], rate_hz: float = 25.0) -> Iterator[str]:
    """The URL of an MJPEG stream on loopback that shows the pictures over and over until the block is left."""
    stop = threading.Event()
    parts = [cv2.imencode(".jpg", picture[:, :, ::-1])[1].tobytes() for picture in pictures]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number = 0
            while not stop.wait(1 / rate_hz):
                part = parts[number % len(parts)]
                number += 1
                try:
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(part) + part + b"\r\n")
                except OSError:  # the reader has gone
                    return

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
