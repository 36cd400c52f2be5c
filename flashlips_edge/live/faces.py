"""The face of a live session: a looped avatar, or a camera that something stands in for while it gives nothing."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

from flashlips_edge.face.detect import Detector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.camera_feed import CameraFeed
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS
from flashlips_edge.pump.counters import Counters
from flashlips_edge.talking.chain import Latent
from flashlips_edge.talking.identity import GrowingIdentity, Identity, lips_of
from flashlips_edge.talking.lips import FaceLips
from flashlips_edge.talking.looped import LoopedAvatar
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.target import Target

BRIDGE_NS = SECOND_NS // 2  # without a camera picture, the idle loop takes over after this


class Face(Protocol):
    """What `PictureLine` asks of a face. `lips` may be asked by another thread."""

    width: int
    height: int
    frame_rate: Fraction

    def target(self, number: int) -> Target | None:
        """The picture of a tick; None where there is no new one."""

    def identity(self, target: Target) -> Identity: ...

    def lips(self) -> FaceLips:
        """What speech needs to know of the face."""

    @property
    def latents(self) -> dict[int, Latent]:
        """Those of pictures that come again, by `Target.index`."""

    @property
    def problem(self) -> str | None:
        """What is wrong with where the pictures come from, in one sentence, while it is."""

    @property
    def counters(self) -> Counters: ...

    def close(self) -> None: ...


class AvatarFace:
    """A recorded face."""

    def __init__(self, avatar: LoopedAvatar, networks: Networks):
        self.avatar = avatar
        self.width, self.height, self.frame_rate = avatar.width, avatar.height, avatar.frame_rate
        self._networks = networks

    @property
    def problem(self) -> str | None:
        return self.avatar.problem

    @property
    def counters(self) -> Counters:
        return self.avatar.counters

    @property
    def latents(self) -> dict[int, Latent]:
        return self.avatar.latents

    def target(self, number: int) -> Target | None:
        return self.avatar.target(number)

    def identity(self, target: Target) -> Identity:
        assert self.avatar.identity is not None
        return self.avatar.identity

    def lips(self) -> FaceLips:
        return lips_of(self.avatar.identity, self._networks)

    def close(self) -> None:
        self.avatar.close()


class CameraFace:
    """The face before a camera. While it gives nothing, its last picture with a face goes on speaking, or after a moment the idle loop.

    Somebody who has left by then is not brought back: the last picture without a face stays.
    """

    def __init__(self, feed: CameraFeed, networks: Networks, new_detector: Callable[[], Detector], idle: AvatarFace | None = None):
        self.feed, self._idle = feed, idle
        self.width: int = feed.width
        self.height: int = feed.height
        self.frame_rate: Fraction = feed.frame_rate
        self._networks = networks
        self._tracker = FaceTracker(new_detector(), float(feed.frame_rate))
        self._known = GrowingIdentity(networks)
        self._last: Target | None = None
        self._empty_since: int | None = None  # the tick of the first picture without a face, of those that came one after the other
        self._missing = 0  # ticks without a new picture
        self._idles = False

    @property
    def problem(self) -> str | None:
        return self.feed.problem

    @property
    def counters(self) -> Counters:
        return self.feed.counters

    @property
    def latents(self) -> dict[int, Latent]:
        return self._idle.latents if self._idle is not None and self._idles else {}

    def target(self, number: int) -> Target | None:
        frame = self.feed.newest()
        if frame is not None:
            self._missing, self._idles = 0, False
            target = self._track(frame)
            if target.crop is not None:
                self._empty_since = None
            elif self._empty_since is None:
                self._empty_since = number
            if self._last is None or self._empty_since is None or self._longer_than_bridged(number - self._empty_since):
                self._last = target
            return target
        self._missing += 1
        if not self._longer_than_bridged(self._missing):
            return None
        self._idles, self._empty_since = self._idle is not None, None
        return self._idle.target(number) if self._idle is not None else self._last

    def identity(self, target: Target) -> Identity:
        if self._idle is not None and self._idles:
            return self._idle.identity(target)
        assert target.crop is not None
        return self._known.see(target.crop.image, target.frame.pts_ns)

    def lips(self) -> FaceLips:
        return self._idle.lips() if self._idle is not None and self._idles else lips_of(self._known.identity, self._networks)

    def close(self) -> None:
        self.feed.close()
        if self._idle is not None:
            self._idle.close()

    def _longer_than_bridged(self, ticks: int) -> bool:
        return ticks * SECOND_NS >= BRIDGE_NS * self.frame_rate

    def _track(self, frame: Frame) -> Target:
        box = self._tracker.update(frame.luma, frame.pts_ns)
        target = Target.of(frame, box, self._networks.crop_size)
        if target.crop is None:
            self._known = GrowingIdentity(self._networks)  # who comes next may be somebody else
        return target
