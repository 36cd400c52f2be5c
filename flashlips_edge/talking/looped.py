"""A recorded face for live use: a picture for every tick, an idle loop without end, other clips in between, cross-faded.

What a tick shows follows from its number alone, in whole numbers, so nothing drifts however long it runs.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.face.detect import Detector
from flashlips_edge.media.clip import Clip
from flashlips_edge.media.decode_ahead import DecodeAhead
from flashlips_edge.media.loop_video import ERRORS, GROUP
from flashlips_edge.pump.counters import Counters
from flashlips_edge.talking import prepared
from flashlips_edge.talking.avatar_folder import IDLE, AvatarFolder
from flashlips_edge.talking.chain import Latent
from flashlips_edge.talking.crossfade import crossfade, fade_ticks
from flashlips_edge.talking.identity import Identity
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.prepared import PreparedClip
from flashlips_edge.talking.target import Target

SECOND_NS = 1_000_000_000
LONGEST_S = 60  # of a video that was not prepared: whoever opens it waits for as long as preparing takes
NO_FACE = "no face was found in it; its pictures are shown unchanged"
AHEAD = 2 * GROUP  # ticks whose pictures are decoded before they are shown

log = logging.getLogger("flashlips_edge")


@dataclass(frozen=True)
class Segment:
    """A stretch of ticks that show one clip: from picture `entry` on at tick `start`."""

    clip: int
    start: int
    entry: int = 0


class LoopedAvatar:
    """A face's picture for every tick. Any thread may call `play` or `close`, one thread calls `target`.

    width, height    pixels
    frame_rate       ticks a second, a Fraction: the idle video's
    identity         the face, or None where no clip shows one
    clips            names that `play` takes, "idle" first
    latents          [C, h, w] by `Target.index`, as they are kept; whoever encodes another picture adds it
    counters         pictures shown, and those repeated because the next one was not decoded in time
    problem          one sentence while pictures cannot be read, when the last one stays, and of a video without a face; else None
    """

    def __init__(self, clips: list[PreparedClip], identity: Identity | None, crop_size: int, latents: dict[int, Latent]):
        idle = clips[0].video
        self.width, self.height, self.frame_rate = idle.width, idle.height, idle.frame_rate
        self.clips = tuple(clip.name for clip in clips)
        self.identity = identity
        self.counters = Counters()
        self._clips, self._crop_size = clips, crop_size
        self._first_index = np.cumsum([0, *(clip.video.count for clip in clips)]).tolist()
        self.latents = latents
        for clip, first in zip(clips, self._first_index):
            if clip.latents is not None:
                self.latents |= {first + i: clip.latents[i] for i, box in enumerate(clip.boxes) if box is not None}
        self._fade = fade_ticks(self.frame_rate)
        self._wait_ns = int(SECOND_NS / self.frame_rate) // 2  # the other half is for what is made of the picture
        self._lock = threading.Lock()
        self._asked: int | None = None
        self._now, self._before = Segment(0, 0), Segment(0, 0)  # what is shown, and what it faded in over
        self._files = ExitStack()
        self._pictures = DecodeAhead([clip.video for clip in clips], "--avatar")
        first = self._pictures.get(0, 0, 0)
        assert first is not None
        self._last = Target.of(first, clips[0].boxes[0], crop_size, 0)

    @staticmethod
    def open(path: str | Path, networks: Networks, detector: Detector) -> LoopedAvatar:
        """The avatar at ``path``: a prepared folder, or a video or folder of pictures, a minute of which is prepared for this run only.

        A folder that was prepared for other networks is opened too, later: its identity is found anew.

        Raises:
            UserError: no avatar and no video, or a damaged one.
        """
        folder = AvatarFolder.open(path)
        with ExitStack() as stack:
            if folder is None or not folder.clips:
                source = Clip(path if folder is None else folder.video, "--avatar")
                log.warning(
                    "avatar %s: its first %d s are prepared for this run only; python -m flashlips_edge.prepare does it for good",
                    path,
                    LONGEST_S,
                )
                # the video stays open: whatever ends the run, no face is left in the folder
                with tempfile.TemporaryDirectory(prefix="flashlips-edge.") as temporary:
                    clips = [prepared.write_pictures(source, Path(temporary), IDLE, detector, "--avatar", longest_s=LONGEST_S)]
                stack.callback(clips[0].video.close)
            else:
                clips = [_opened(folder.folder, name, stack) for name in folder.clips]
                prepared.check_together(clips)
            latents: dict[int, Latent] = {}
            identity = _identity(clips, networks, folder, latents)
            avatar = LoopedAvatar(clips, identity, networks.crop_size, latents)
            if identity is None:
                log.warning("avatar %s: %s", path, NO_FACE)
            avatar._files = stack.pop_all()
            return avatar

    def target(self, number: int) -> Target:
        """The picture of tick ``number``, its pts the tick's. Numbers grow from 0 and may skip; it never waits for a whole frame.

        In a fade the picture has no index: it is shown once, and its latent need not be kept.
        """
        pts_ns = int(number * SECOND_NS / self.frame_rate)
        with self._lock:
            self._advance(number)
            now, before, asked = self._now, self._before, self._asked
        self._pictures.want(self._coming(number, now, before, asked))
        fading = number - now.start
        clip, picture = now.clip, self._picture(now, number)
        frame = self._pictures.get(clip, picture, self._wait_ns)
        old, old_picture = None, 0
        if now.start and fading < self._fade and frame is not None:
            old_picture = self._picture(before, number)
            old = self._pictures.get(before.clip, old_picture, self._wait_ns)
        self.counters.entered += 1
        if frame is None:
            self.counters.repeated += 1
            return replace(self._last, frame=self._last.frame.at(pts_ns))
        box, index = self._clips[clip].boxes[picture], self._first_index[clip] + picture
        if old is not None:
            t = (fading + 1) / (self._fade + 1)
            frame, box = crossfade(old, self._clips[before.clip].boxes[old_picture], frame, box, t * t * (3 - 2 * t))
            index = None
        self.counters.left += 1
        self._last = Target.of(frame.at(pts_ns), box, self._crop_size, index)
        return self._last

    def play(self, clip: str) -> None:
        """From the next tick on show this clip, once, and then the idle loop again. UserError names the clips there are."""
        if clip not in self.clips:
            raise UserError(f"clip {clip!r}: this avatar has {', '.join(self.clips)}")
        with self._lock:
            self._asked = self.clips.index(clip)

    @property
    def showing(self) -> str:
        """The clip that is shown."""
        return self.clips[self._now.clip]

    @property
    def problem(self) -> str | None:
        return self._pictures.problem or (NO_FACE if self.identity is None else None)

    def close(self) -> None:
        """End the thread, close the files. May be called twice. TimeoutError if a disk does not answer for ten seconds."""
        self._pictures.close()
        self._files.close()

    def _advance(self, number: int) -> None:
        """Begin the segment that tick `number` calls for. What fades in is shown to the end of its fade before anything else."""
        after_fade = self._now.start + self._fade if self._now.start else 0
        if self._now.clip != 0:
            ends = max(after_fade, self._now.start + self._clips[self._now.clip].video.count - self._fade)
            if number >= ends:
                self._begin(Segment(0, ends, self._clips[self._now.clip].back_to))
                after_fade = ends + self._fade
        if self._asked is not None and number >= after_fade:
            asked, self._asked = self._asked, None
            if asked != self._now.clip or asked != 0:  # idle is not begun again while it is shown
                entry = self._clips[self._now.clip].back_to if asked == 0 else 0
                self._begin(Segment(asked, max(1, number), entry))

    def _begin(self, segment: Segment) -> None:
        self._before, self._now = self._now, segment

    def _picture(self, segment: Segment, number: int) -> int:
        """The picture's number in its clip: there and back in the idle loop; another clip stops at its last."""
        count, position = self._clips[segment.clip].video.count, segment.entry + max(0, number - segment.start)
        if segment.clip != 0:
            return min(position, count - 1)
        turn = max(1, 2 * count - 2)
        return min(position % turn, turn - position % turn)

    def _coming(self, number: int, now: Segment, before: Segment, asked: int | None) -> Iterator[tuple[int, int]]:
        """The pictures of this tick and the next ones, as far as can be told."""
        yield now.clip, self._picture(now, number)
        if number - now.start < self._fade:
            yield before.clip, self._picture(before, number)
            yield before.clip, self._picture(before, now.start + self._fade)
        for later in range(number, number + AHEAD, GROUP // 2):
            yield now.clip, self._picture(now, later)
        if asked is not None:
            yield asked, 0
        if now.clip != 0 and number + AHEAD >= now.start + self._clips[now.clip].video.count - self._fade:
            back_to = self._clips[now.clip].back_to
            yield 0, back_to
            yield 0, min(back_to + GROUP, self._clips[0].video.count - 1)


def _opened(folder: Path, name: str, stack: ExitStack) -> PreparedClip:
    clip = prepared.load(folder, name)
    stack.callback(clip.video.close)
    return clip


def _identity(clips: list[PreparedClip], networks: Networks, folder: AvatarFolder | None, latents: dict[int, Latent]) -> Identity | None:
    """The face: as it was prepared, else, or for other networks, found in the pictures; then prepared latents are dropped, and those
    of the pictures that it refers to come into ``latents``."""
    if folder is not None and folder.clips:
        if folder.record.get("networks") == prepared.digest(networks.bundle):
            return prepared.load_identity(folder.folder, networks)
        clips[:] = [replace(clip, latents=None) for clip in clips]
        log.warning("avatar %s was prepared for another bundle and opens slowly: prepare it again for this one", folder.folder)
    try:
        references = prepared.references_in(clips, networks, latents)
    except ERRORS as error:
        raise UserError(f"--avatar {clips[0].video.path}: it cannot be read: {error}") from None
    return None if references is None else Identity.in_references(networks, references)
