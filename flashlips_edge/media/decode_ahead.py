"""Pictures of looped videos, decoded by a thread of their own before they are shown, and kept as long as there is room.

What fits into KEPT_BYTES is decoded once; of longer videos each group of pictures is decoded anew whenever the loop comes by.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress

from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.loop_video import ERRORS, GROUP, LoopVideo
from flashlips_edge.pump.clock import MonotonicClock
from flashlips_edge.pump.mailbox import ClosedError, Mailbox
from flashlips_edge.pump.stage import Stage

KEPT_BYTES = 512_000_000
FEWEST = 6  # groups kept, however large: two of each video of a cross-fade, and what comes next
Group = tuple[int, int]  # the video's number, the group's number in it


class DecodeAhead:
    """Pictures by the video's number and their own. One thread asks; `close` ends the thread, and the videos may be closed then.

    problem   one sentence while pictures cannot be read, else None; reading is tried again whenever something is wanted

    Raises UserError, naming `argument`, if the first picture cannot be read.
    """

    def __init__(self, videos: Sequence[LoopVideo], argument: str):
        self.problem: str | None = None
        self._videos, self._clock = list(videos), MonotonicClock()
        self._bound = max(FEWEST, KEPT_BYTES // (videos[0].width * videos[0].height * 3 // 2 * GROUP))
        self._decoded: OrderedDict[Group, list[Frame]] = OrderedDict()  # the one used longest ago first
        self._begins = {(video, 0) for video in range(min(len(videos), self._bound // 2))}  # kept: a clip must start at once
        self._changed = threading.Condition()
        self._wanted: Mailbox[list[Group]] = Mailbox(self._clock)
        self._thread = Stage("decode ahead", self._wanted, self._decode)
        try:
            self._decoded[0, 0] = videos[0].group(0)
        except ERRORS as error:
            raise UserError(f"{argument} {videos[0].path}: it cannot be read: {error}; prepare the avatar again") from None
        self._thread.start()
        self._ask(sorted(self._begins))

    def want(self, pictures: Iterable[tuple[int, int]]) -> None:
        """Have these decoded, the most urgent first: (video, picture) each."""
        self._ask(list(dict.fromkeys((video, picture // GROUP) for video, picture in pictures)))

    def get(self, video: int, picture: int, timeout_ns: int) -> Frame | None:
        """The picture; None if it is not decoded by the deadline."""
        key, deadline_ns = (video, picture // GROUP), self._clock.now_ns() + timeout_ns
        with self._changed:
            while key not in self._decoded and self._clock.now_ns() < deadline_ns:
                self._clock.wait(self._changed, deadline_ns)
            if key not in self._decoded:
                return None
            self._decoded.move_to_end(key)
            return self._decoded[key][picture % GROUP]

    def close(self) -> None:
        """Raises TimeoutError, and leaves the thread behind, if a disk does not answer for ten seconds."""
        self._thread.stop()
        self._thread.join()

    def _ask(self, groups: list[Group]) -> None:
        with self._changed:
            missing = any(group not in self._decoded for group in groups)
        if missing:
            with suppress(ClosedError):  # closed by another thread: nothing more is decoded
                self._wanted.put(groups)

    def _decode(self, wanted: list[Group]) -> None:
        for key in wanted:
            with self._changed:
                if key in self._decoded:
                    continue
            try:
                frames = self._videos[key[0]].group(key[1])
            except ERRORS as error:
                self.problem = f"the avatar's pictures cannot be read: {error}"
                return
            self.problem = None
            with self._changed:
                self._decoded[key] = frames
                old = [other for other in self._decoded if other not in self._begins and other not in wanted]
                for other in old[: max(0, len(self._decoded) - self._bound)]:
                    del self._decoded[other]
                self._changed.notify_all()
