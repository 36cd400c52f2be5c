"""What is given up, in order, when a session cannot keep up, and taken back when it can."""

from __future__ import annotations

from flashlips_edge.pump.clock import SECOND_NS

# level 0: every picture is made; one that is late is left out, and the last one is shown again
# level 1: every second picture is made
# level 2: ... and in silence a camera's is passed on as it is (an avatar's closed mouths are kept and cost nothing)
# level 3: every third picture is made
EVERY = (1, 2, 2, 3)
LATE_SHARE = 0.2  # of the pictures due in a second: more than this late, and it steps down
BUSY_SHARE = 0.75  # of the time: if one step up would be less busy than this, it steps up
DOWN_NS, UP_NS = SECOND_NS, 4 * SECOND_NS  # between two steps


class Ladder:
    """The level of a line whose pictures are due every `frame_ns`. `steps` counts the way down and up."""

    def __init__(self, frame_ns: int):
        self.level = 0
        self.steps = [0, 0]  # down, up
        self._frame_ns = frame_ns
        self._since_ns = 0
        self._made = self._late = self._busy_ns = 0

    @property
    def every(self) -> int:
        """One picture in this many is made."""
        return EVERY[self.level]

    @property
    def edits_silence(self) -> bool:
        return self.level < 2

    def made(self, now_ns: int, took_ns: int, late: int) -> None:
        """A picture took this long, and this many could not be made because of it."""
        self._made += 1
        self._late += late
        self._busy_ns += took_ns
        elapsed_ns = now_ns - self._since_ns
        if elapsed_ns >= DOWN_NS and self._late > LATE_SHARE * (self._made + self._late):
            self._step(now_ns, +1)
        elif elapsed_ns >= UP_NS:
            share = self._busy_ns / max(1, self._made) / self._frame_ns / EVERY[max(0, self.level - 1)]
            self._step(now_ns, -1 if self.level and not self._late and share < BUSY_SHARE else 0)

    def _step(self, now_ns: int, by: int) -> None:
        level = min(max(self.level + by, 0), len(EVERY) - 1)
        if level != self.level:
            self.steps[by < 0] += 1
        self.level = level
        self._since_ns, self._made, self._late, self._busy_ns = now_ns, 0, 0, 0
