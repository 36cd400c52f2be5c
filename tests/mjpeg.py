"""A camera on loopback: MJPEG over HTTP, with the faults that cameras have."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import cv2
import numpy as np
from clips import corners


class Stream(ThreadingHTTPServer):
    """Serves the corners picture, `n` times, with a count in grey in its middle; what it does can be changed while it runs.

    mode    "live"; "frozen": the count stands; "black": black with a sensor's noise; "hang": nothing more comes, the line stays open;
            "cut": the line is closed; "refuse": so is every new one, without an answer
    size    width and height
    requests    connections so far
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, n: int = 10**9, hang_after: int = 10**9, frames_per_s: float = 100, port: int = 0):
        self.n, self.hang_after, self.frames_per_s = n, hang_after, frames_per_s
        self.mode, self.size, self.requests = "live", (160, 120), 0
        self.over = threading.Event()
        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpg"

    def picture(self, count: int) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        width, height = self.size
        if self.mode == "black":
            return np.random.default_rng(count).integers(0, 12, (height, width, 3), np.uint8)
        image = corners(width, height)
        image[50:70, 70:90] = 0 if self.mode == "frozen" else count % 250
        return image

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()
        self._thread.join(10)


class Handler(BaseHTTPRequestHandler):
    server: Stream

    def do_GET(self) -> None:
        server = self.server
        server.requests += 1
        if server.mode == "refuse":
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for i in range(server.n):
                if i == server.hang_after:
                    server.over.wait(60)
                while server.mode == "hang" and not server.over.wait(0.01):
                    pass
                if server.mode in ("cut", "refuse") or server.over.wait(server.frames_per_s and 1 / server.frames_per_s):
                    return
                jpeg = cv2.imencode(".jpg", server.picture(i)[:, :, ::-1])[1].tobytes()
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(head + jpeg + b"\r\n")
        except OSError:
            pass  # the camera hung up

    def log_message(self, *_: object) -> None:
        pass
