"""A live session without threads, networks or waiting: its lines are polled on a clock that jumps from one thing to do to the next.

The loudness of a step of speech is its lips[0], and that is what a picture shows: so what is seen can be compared with what is heard.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np

from flashlips_edge.live import picture_line
from flashlips_edge.live.picture_line import PictureLine
from flashlips_edge.live.show import Show
from flashlips_edge.live.speech_line import SpeechLine
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.playback import Metronome, Playback
from flashlips_edge.talking.lips import FaceLips

RATE_HZ = 48_000
CLOSED = -1.0  # lips[0] of the closed mouth
STEP = 640


class SteppedClock:
    """Goes on when it is told to; nobody waits on it."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        return self.ns

    def wait(self, condition: threading.Condition, deadline_ns: int) -> None:
        raise AssertionError("a simulated line waited")


class LoudnessNetworks:
    """Speech [T, 1] is the loudness of each step; so are the lips."""

    window, previous, crop_size = 50, 10, 32

    def speech(self, waveform: np.ndarray) -> np.ndarray:
        return np.abs(waveform[: len(waveform) // STEP * STEP].reshape(-1, STEP)).mean(1, keepdims=True).astype(np.float32)

    def audio_to_lips(self, speech: np.ndarray, reference_lips: np.ndarray, previous_lips: np.ndarray) -> np.ndarray:
        return np.repeat(speech, 12, axis=1)


@dataclass(frozen=True)
class Shown:
    """A frame: what its mouth looks like."""

    mouth: float
    pts_ns: int = 0

    def at(self, pts_ns: int) -> Shown:
        return replace(self, pts_ns=pts_ns)


@dataclass(frozen=True)
class Picture:
    """A target whose painting shows lips[0]."""

    frame: Shown
    crop: object = True
    index: int | None = None

    def paint(self, edited: np.ndarray) -> Shown:
        return Shown(float(edited.flat[0]))


class StillFace:
    """The same face in every picture."""

    width = height = 32
    problem = None

    def __init__(self, frame_rate: Fraction):
        self.frame_rate = frame_rate
        self.counters = Counters()
        self.latents: dict[int, np.ndarray] = {}

    def target(self, number: int) -> Picture:
        return Picture(Shown(float("nan")))

    def identity(self, target: Picture) -> None:
        return None

    def lips(self) -> FaceLips:
        return FaceLips(np.zeros((4, 12), np.float32), np.full(12, CLOSED, np.float32))


class Simulation:
    """`device` is how fast the sound output's clock runs against the session's. `heard` and `seen` are called with what comes out."""

    def __init__(self, monkeypatch, device: float = 1.0, frame_rate: Fraction = Fraction(25), block_ns: int = 20_000_000):
        monkeypatch.setattr(picture_line, "edit_mouths", lambda networks, targets, lips, identity, known: lips[:, :1, None, None])
        self.clock = SteppedClock()
        self._device = device
        self.heard: Callable[[np.ndarray, int], None] = lambda samples, position: None
        self.seen: Callable[[Shown], None] = lambda frame: None
        self.playback = Playback(self.clock, RATE_HZ, lambda samples, position: self.heard(samples, position))
        networks, face = LoudnessNetworks(), StillFace(frame_rate)
        self.speech = SpeechLine(networks, self.playback, face.lips, self.clock)  # type: ignore[arg-type]
        self.pictures = PictureLine(networks, face, self.speech, self.playback, self.clock)  # type: ignore[arg-type]
        self.show = Show(self.pictures, self.playback, self.clock, lambda frame: self.seen(frame))  # type: ignore[arg-type]
        self.output = Metronome(self.playback, SimpleNamespace(now_ns=lambda: int(self.clock.ns * device)), block_ns)  # type: ignore[arg-type]
        self._next_ns = [0, 0, 0, 0]
        self.speech.on_push(self.wake)

    def wake(self) -> None:
        self._next_ns[1] = self.clock.ns

    def run_until(self, end_ns: int) -> None:
        """Poll whatever is due until the clock is there."""
        lines = (self.output, self.speech, self.pictures, self.show)
        clock, due_ns = self.clock, self._next_ns
        while True:
            for i, line in enumerate(lines):
                if due_ns[i] <= clock.ns:
                    due_ns[i] = clock.ns + line.poll()
            soonest = min(due_ns)
            if soonest > end_ns:
                clock.ns = max(clock.ns, end_ns)
                return
            clock.ns = max(clock.ns, soonest)

    def run(self, ns: int) -> None:
        self.run_until(self.clock.ns + ns)

    def suspend(self, ns: int) -> None:
        """Time passes and nobody polls."""
        self.clock.ns += ns


def voice(seconds: float, level: float = 0.3, sample_rate_hz: int = 16_000) -> np.ndarray:
    """Two long syllables a second, with pauses between them; the mean loudness of a syllable's middle is `level`."""
    t = np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz
    syllables = (0.5 - 0.5 * np.cos(2 * np.pi * 2 * t)) ** 2
    return (level * syllables * np.sin(2 * np.pi * 700 * t) * np.pi / 2).astype(np.float32)
