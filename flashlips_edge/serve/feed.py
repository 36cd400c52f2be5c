"""From the session's sink thread to the clients: each frame and block of sound is made once for each way of sending it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.serve import messages
from flashlips_edge.serve.outbox import Outbox
from flashlips_edge.session import LipSync

JPEG_QUALITY = 85


class Subscriber:
    """What one client wants, put into the lanes "frames" and "sound" of its outbox. Changed in the event loop, read in the sink's thread.

    frames     "none", "jpeg" or "raw": binary messages; "frame": the Frame itself
    max_rate   frames per second of media time at most
    sound      "none"; "pcm": binary messages; "samples": (float32 [n], pts_ns)
    """

    def __init__(self, outbox: Outbox, frames: str = "none", max_rate: float = messages.RATE_LIMITS[1], sound: str = "none"):
        self.outbox, self.frames, self.max_rate, self.sound = outbox, frames, max_rate, sound
        self._last_ns = -math.inf  # when the last frame was due; not the next, so that another rate holds at once

    def due(self, pts_ns: int) -> bool:
        """Whether it is time for another frame; only for the sink's thread."""
        period_ns = int(SECOND_NS / self.max_rate)
        due_ns = self._last_ns + period_ns
        if self.frames == "none" or pts_ns < due_ns:
            return False
        self._last_ns = due_ns if pts_ns < due_ns + period_ns else pts_ns  # after a gap it begins anew
        return True


class Feed:
    """The session's sink for all clients together. `write` and `write_audio` are called in the sink's own thread."""

    def __init__(self, session: LipSync, clock: Clock):
        self.last_frame_ns = clock.now_ns()
        self.encoded = 0  # JPEG pictures made
        self._session, self._clock = session, clock
        self._subscribers: tuple[Subscriber, ...] = ()  # replaced as a whole, so that the sink's thread needs no lock

    def add(self, subscriber: Subscriber) -> None:
        self._subscribers += (subscriber,)

    def remove(self, subscriber: Subscriber) -> None:
        self._subscribers = tuple(other for other in self._subscribers if other is not subscriber)

    def write(self, frame: Frame) -> None:
        self.last_frame_ns = self._clock.now_ns()
        made: dict[str, Any] = {"frame": frame}
        for subscriber in self._subscribers:
            kind = subscriber.frames
            if subscriber.due(frame.pts_ns):
                if kind not in made:
                    made[kind] = self._picture(kind, frame)
                subscriber.outbox.put("frames", made[kind])

    def write_audio(self, samples: np.ndarray, pts_ns: int) -> None:
        makers: dict[str, Callable[[], Any]] = {"samples": lambda: (samples, pts_ns), "pcm": lambda: self._sound(samples, pts_ns)}
        made: dict[str, Any] = {}
        for subscriber in self._subscribers:
            kind = subscriber.sound
            if kind in makers:
                if kind not in made:
                    made[kind] = makers[kind]()
                subscriber.outbox.put("sound", made[kind])

    def close(self) -> None:
        """No more comes: the clients' outboxes end."""
        for subscriber in self._subscribers:
            subscriber.outbox.close()

    def _picture(self, kind: str, frame: Frame) -> bytes:
        epoch = self._session.epoch
        if kind == "raw":
            return messages.binary(messages.RAW, epoch, frame.pts_ns, frame.width, frame.height, frame.image.tobytes())
        self.encoded += 1
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return messages.binary(messages.JPEG, epoch, frame.pts_ns, frame.width, frame.height, jpeg.tobytes())

    def _sound(self, samples: np.ndarray, pts_ns: int) -> bytes:
        pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        return messages.binary(messages.SOUND, self._session.epoch, pts_ns, self._session.sample_rate_hz, 1, pcm)
