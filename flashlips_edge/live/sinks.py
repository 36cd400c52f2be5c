"""Where frames and heard sound go: each sink in a thread of its own, behind bounded queues, so that none holds up another."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

import numpy as np

from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.worker import LOOK_NS

FRAMES = 3  # that wait for a sink
BLOCKS = 200  # of sound, 20 ms each, that wait for a sink
SLOW_NS = 10 * SECOND_NS  # a call that takes longer has hung: the sink is given up
LAST_NS = 2 * SECOND_NS  # for a sink to take what still waits for it at `close`


class Sink(Protocol):
    """One thread calls it, in order of time. What it raises closes and removes it."""

    def write(self, frame: Frame) -> None:
        """The frame to be seen at `frame.pts_ns`, in media time."""

    def write_audio(self, samples: np.ndarray, pts_ns: int) -> None:
        """float32 [n] mono at 48 kHz, heard from `pts_ns` on; without gaps, silence included, unless the sink was too slow."""

    def close(self) -> None: ...


class SinkLine:
    """A sink and its thread. Whoever puts never waits; what the sink is too slow for is dropped, the oldest first, and counted.

    counters   frames
    sound      blocks of sound
    problem    why the sink was closed before its time, in one sentence
    """

    def __init__(self, name: str, sink: Sink, clock: Clock):
        self.name, self.sink = name, sink
        self.counters, self.sound = Counters(), Counters()
        self.problem: str | None = None
        self._clock = clock
        self._changed = threading.Condition()
        self._frames: deque[Frame] = deque(maxlen=FRAMES)
        self._blocks: deque[tuple[np.ndarray, int]] = deque(maxlen=BLOCKS)
        self._closing = False
        self._since_ns = 0  # when the call under way began; 0 while none is
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        with self._changed:
            self.counters.entered += 1
            self.counters.dropped += len(self._frames) == FRAMES
            self._frames.append(frame)
            self._changed.notify()

    def put_sound(self, samples: np.ndarray, pts_ns: int) -> None:
        with self._changed:
            self.sound.entered += 1
            self.sound.dropped += len(self._blocks) == BLOCKS
            self._blocks.append((samples, pts_ns))
            self._changed.notify()

    def forgive(self, still_ns: int) -> None:
        """For so long nothing in the process could run: the call under way took that much less."""
        with self._changed:
            if self._since_ns:
                self._since_ns = min(self._since_ns + still_ns, self._clock.now_ns())

    @property
    def ended(self) -> bool:
        """Whether nothing more goes to the sink: it failed, hung or was closed."""
        hung = self._since_ns > 0 and self._clock.now_ns() - self._since_ns > SLOW_NS
        if hung and self.problem is None:
            self.problem = f"{self.name} took more than {SLOW_NS // SECOND_NS} s over one frame; it was given up"
        return hung or not self._thread.is_alive()

    def end(self) -> None:
        """Let its thread hand on what waits, close the sink and end; nobody waits for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self) -> bool:
        """Hand on what waits, and close the sink; whether that was done in time."""
        self.end()
        if threading.current_thread() is not self._thread:
            self._thread.join(LAST_NS / SECOND_NS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            try:
                while (item := self._take()) is not None:
                    if isinstance(item, Frame):
                        self.sink.write(item)
                        self.counters.left += 1
                    else:
                        self.sink.write_audio(*item)
                        self.sound.left += 1
            except Exception as error:
                self._failed(error)
            finally:
                with self._changed:
                    self._since_ns = 0
                self.sink.close()
        except Exception as error:
            if self.problem is None:  # else it is what came of the first
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.problem = f"{self.name} ended: {str(error) or type(error).__name__}".splitlines()[0]

    def _take(self) -> Frame | tuple[np.ndarray, int] | None:
        """What is to be written next, in order of time; None at the end. The call that writes it begins now."""
        with self._changed:
            self._since_ns = 0
            while not (self._frames or self._blocks or self._closing):
                self._clock.wait(self._changed, self._clock.now_ns() + LOOK_NS)
            self._since_ns = max(1, self._clock.now_ns())
            if self._blocks and not (self._frames and self._frames[0].pts_ns < self._blocks[0][1]):
                return self._blocks.popleft()
            return self._frames.popleft() if self._frames else None
