"""A service on loopback for tests, in a thread with an event loop of its own, and a stand-in for the session where networks add nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, Clock, MonotonicClock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.serve.server import serve

RATE_HZ, FRAME_S = 48_000, 0.04
STEP, LEVELS = 6, 240  # from frame to frame the grey grows so much, and begins anew
DEADLINE_S = 20
BUZZ = np.where(np.arange(int(RATE_HZ * FRAME_S)) // 48 % 2, 0.25, -0.25).astype(np.float32)  # 500 Hz, the sound of each frame


@dataclass
class StandInStats:
    media_ns: int = 0
    level: int = 0
    epoch: int = 0
    speaking: bool = False
    counters: dict[str, Counters] = field(default_factory=lambda: {"pictures": Counters(), "sound in": Counters()})
    gauges: dict[str, float] = field(default_factory=lambda: {"latency_ms_p50": 120.0, "offset_ms_p50": float("nan")})
    restarts: dict[str, int] = field(default_factory=lambda: {"lips": 0})
    problems: dict[str, str] = field(default_factory=dict)


class StandIn:
    """A session whose picture is grey and brighter from frame to frame, and whose sound is what was pushed. `tick` makes one frame."""

    sample_rate_hz, frame_rate, clips = RATE_HZ, Fraction(25), ("idle", "wave")

    def __init__(self, width: int = 64, height: int = 48):
        self.width, self.height = width, height
        self.now = StandInStats()
        self.clip, self.stuck = "idle", ()
        self.waiting_ns, self.closed = 0, False
        self.pushed: list[tuple[np.ndarray, int]] = []
        self.asked: list[str] = []
        self.sinks: dict[str, Any] = {}
        self.number = 0

    @property
    def epoch(self) -> int:
        return self.now.epoch

    def stats(self) -> StandInStats:
        return replace(self.now, counters={name: replace(counters) for name, counters in self.now.counters.items()})

    def add_sink(self, name: str, sink: Any) -> None:
        self.sinks[name] = sink

    def remove_sink(self, name: str) -> None:
        self.sinks.pop(name).close()

    def push_audio(self, pcm: np.ndarray, sample_rate_hz: int) -> None:
        self.pushed.append((pcm, sample_rate_hz))

    def say_silence(self) -> None:
        self.asked.append("say_silence")

    def interrupt(self) -> None:
        self.asked.append("interrupt")
        self.now = replace(self.now, epoch=self.now.epoch + 1)

    def play(self, clip: str) -> None:
        if clip not in self.clips:
            raise UserError(f"clip {clip}: there is none of that name: give idle or wave")
        self.clip = clip

    def tick(self, image: np.ndarray | None = None) -> None:
        """One more frame and its 40 ms of sound into every sink, as the session's threads would."""
        pts_ns = int(self.number * FRAME_S * SECOND_NS)
        if image is None:
            image = np.full((self.height, self.width, 3), STEP * self.number % LEVELS, np.uint8)
        self.now = replace(self.now, media_ns=pts_ns)
        self.now.counters["pictures"].entered += 1
        self.now.counters["pictures"].left += 1
        for sink in list(self.sinks.values()):
            sink.write(Frame(image, pts_ns))
            sink.write_audio(BUZZ, pts_ns)
        self.number += 1


@contextmanager
def live(session: StandIn, image: np.ndarray | None = None) -> Iterator[StandIn]:
    """The stand-in ticks 25 times a second in a thread until the block is left."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(FRAME_S):
            session.tick(image)

    thread = threading.Thread(target=run, name="stand-in")
    thread.start()
    try:
        yield session
    finally:
        stop.set()
        thread.join(DEADLINE_S)


@contextmanager
def serving(session: Any, token: str | None = None, voice: Any = None, clock: Clock | None = None) -> Iterator[str]:
    """The address, such as http://127.0.0.1:4711, of a service of this session until the block is left."""
    started = threading.Event()
    addresses: list[str] = []
    handle: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop = asyncio.Event()
        handle.append((asyncio.get_running_loop(), stop))

        def ready(address: str) -> None:
            addresses.append(address.rstrip("/"))
            started.set()

        await serve(session, clock or MonotonicClock(), voice, token, "127.0.0.1", 0, stop, ready)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="service")
    thread.start()
    assert started.wait(DEADLINE_S)
    try:
        yield addresses[0]
    finally:
        loop, stop = handle[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the service hangs at its close"
