"""What the tests of live sessions share: a sink that remembers what it was given, and waiting for something to come true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from faces import mouth_level

from flashlips_edge.media.frames import Frame

DEADLINE_S = 30
RATE_HZ = 48_000
OPEN_LEVEL, CLOSED_LEVEL = 248, 240  # of the mouth of faces.face(), by tests/tiny_bundle.py; one that nobody edits is darker than both


def await_that(condition: Callable[[], object], what: str = "", deadline_s: float = DEADLINE_S) -> None:
    """Come back when the condition holds; an AssertionError if it does not in time."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < deadline_s, f"waited {deadline_s} s {what or 'in vain'}"
        threading.Event().wait(0.01)


@dataclass(frozen=True)
class Seen:
    pts_ns: int
    at_s: float  # when it came
    mouth: float  # brightness
    mean: float

    @property
    def open(self) -> bool:
        return self.mouth > OPEN_LEVEL

    @property
    def closed(self) -> bool:
        return self.mouth < CLOSED_LEVEL


class Watcher:
    """A sink. `seen` and `frames` grow as it is handed frames, `blocks` as it is handed sound."""

    def __init__(self, keep: int = 0):
        self.seen: list[Seen] = []
        self.frames: list[Frame] = []  # the newest `keep`
        self.blocks: list[tuple[np.ndarray, int]] = []
        self.closed = threading.Event()
        self._keep = keep
        self._looked = 0  # frames that were waited for

    def write(self, frame: Frame) -> None:
        self.seen.append(Seen(frame.pts_ns, time.monotonic(), mouth_level(frame.image), float(frame.image.mean())))
        self.frames = [*self.frames, frame][-self._keep :] if self._keep else []

    def write_audio(self, samples: np.ndarray, pts_ns: int) -> None:
        self.blocks.append((samples, pts_ns))

    def close(self) -> None:
        self.closed.set()

    @property
    def sound(self) -> np.ndarray:
        """All sound so far, float32 [n]; it has no gap."""
        blocks = self.blocks[:]
        ends = [round(pts_ns * RATE_HZ / 1e9) + len(samples) for samples, pts_ns in blocks]
        starts = [round(pts_ns * RATE_HZ / 1e9) for _, pts_ns in blocks]
        assert ends[:-1] == starts[1:], "the sound has gaps"
        return np.concatenate([samples for samples, _ in blocks])

    def await_frames(self, count: int = 10) -> list[Seen]:
        """The next frames, as many as that."""
        first = len(self.seen)
        await_that(lambda: len(self.seen) >= first + count, f"for {count} frames")
        return self.seen[first:]

    def await_open(self) -> None:
        """Come back when the mouth has opened, since this or `await_closed` last came back."""
        await_that(lambda: self._saw(lambda seen: seen.open), "for the mouth to open")

    def await_closed(self) -> None:
        await_that(lambda: self._saw(lambda seen: seen.closed), "for the mouth to close")

    def _saw(self, condition: Callable[[Seen], bool]) -> bool:
        found = next((i for i, seen in enumerate(self.seen[self._looked :]) if condition(seen)), None)
        self._looked += found + 1 if found is not None else 0
        return found is not None

    @property
    def longest_gap_s(self) -> float:
        return max((b.at_s - a.at_s for a, b in pairwise(self.seen[:])), default=0.0)
