"""A face that is made to speak, one call at a time: open a bundle, push speech or another face, pull frames that speak it.

    talker = Talker.open("nano")
    talker.use_avatar("face.mp4")
    talker.push_audio(waveform)                      # float32, mono, 16 kHz; in pieces if you like
    talker.finish()
    for frame in talker.frames(): ...                # or, one at a time, talker.pull_frame()

or, frame by frame, on a live face:

    talker.push_audio(piece, pts_ns, live=True)      # one thread may push ...
    frame = talker.lip_sync(frame)                   # ... while another edits

Times are nanoseconds on one clock of your choice; an avatar's first frame and speech pushed without a pts are at 0.
A talker owns its networks, trackers and threads; `close` ends them. One thread pushes, one pulls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.face.detect import Detector, HaarDetector, YuNetDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.read_ahead import read_ahead
from flashlips_edge.speech.features import SAMPLE_RATE_HZ
from flashlips_edge.talking.avatar import Avatar
from flashlips_edge.talking.chain import Edited
from flashlips_edge.talking.editing import begin_mouths
from flashlips_edge.talking.identity import GrowingIdentity, Identity, lips_of
from flashlips_edge.talking.lips import STEP_NS, FaceLips, LipsTrack, SpeechToLips
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.stage_times import StageTimes
from flashlips_edge.talking.target import Target

BATCH = 4  # frames that go through the networks together on files
BATCHES_AHEAD = 1  # that are begun while one is not done yet
LIVE_STEPS = 4  # lips steps made at a time on live speech: 160 ms, and as much again of look-ahead
ROUNDING_NS = 1_000  # by so much times of pictures, rounded and added up, may be wrong
KEPT_LIPS_NS = 1_000_000_000  # of the past, on a live run
PICTURE_GRAPHS = ("latent_encoder", "editor", "latent_decoder", "lips_encoder")


class Talker:
    """One face that is made to speak. `times` holds the seconds of each stage, `lips` the lips vectors by pts."""

    def __init__(self, bundle: Bundle, threads: int = 2, detector: str | Path | None = None):
        self.networks = Networks(bundle, threads)
        self.networks.load(*PICTURE_GRAPHS)
        self.times = StageTimes()
        self.lips = LipsTrack()
        self.end_ns: int | None = None  # where the speech ends, once `finish` has been called
        self.avatar: Avatar | None = None
        self._detector_path = detector
        self._tracker = FaceTracker(self._new_detector())
        self._driver_tracker: FaceTracker | None = None
        self._identity = GrowingIdentity(self.networks)
        self._speech: SpeechToLips | None = None
        self._speech_start_ns = 0
        self._speech_steps = 0
        self._speech_samples = 0
        self._targets: Iterator[Target] | None = None
        self._next: Target | None = None

    @staticmethod
    def open(bundle: str | Path = "nano", threads: int = 2, detector: str | Path | None = None) -> Talker:
        """A talker on a bundle's name or folder. `detector` is a YuNet file, else the Haar cascade finds the face."""
        return Talker(Bundle.open(bundle), threads, detector)

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the avatar."""
        if self.avatar is not None:
            self.avatar.close()

    def use_avatar(self, path: str | Path) -> Avatar:
        """The recorded face to speak, a video or a folder: before any speech is pushed. Gives what was made of it."""
        self.avatar = Avatar(path, self.networks, self._new_detector(), self.times)
        self._targets = self.avatar.targets()
        self._identity = GrowingIdentity(self.networks, self.avatar.identity, self.avatar.known)
        return self.avatar

    def push_audio(self, waveform: np.ndarray, pts_ns: int = 0, live: bool = False) -> None:
        """More speech: float32 [N] mono at 16 kHz. `pts_ns` is the time of the very first sample; later ones follow it.

        `live` makes lips in steps of 160 ms, soon after they are said, instead of in windows of two seconds. The first piece decides.
        """
        if self._speech is None:
            self._speech_start_ns = pts_ns
            self._speech = SpeechToLips(self.networks, *self._lips_of_face(), new_steps=LIVE_STEPS if live else None)
        self._speech.speak_as(*self._lips_of_face())
        self._speech_samples += len(waveform)
        with self.times.stage("speech"):
            self._append(self._speech.push(waveform))

    def push_face(self, frame: Frame) -> bool:
        """One more frame of the face that drives; without a face in it the lips stay as they were. Gives whether there is one."""
        if self._driver_tracker is None:
            self._driver_tracker = FaceTracker(self._new_detector())
        with self.times.stage("driver"):
            box = self._driver_tracker.update(frame.luma, frame.pts_ns)
            crop = Target.of(frame, box, self.networks.crop_size).crop
            if crop is not None:
                self.lips.append(frame.pts_ns, self.networks.lips(crop.image[None])[0])
        return crop is not None

    def finish(self, end_ns: int | None = None) -> None:
        """No more is pushed. The frames end with the speech, or at `end_ns`."""
        if self._speech is not None:
            with self.times.stage("speech"):
                self._append(self._speech.finish())
            spoken_ns = self._speech_samples * 1_000_000_000 // SAMPLE_RATE_HZ
            self.end_ns = self._speech_start_ns + spoken_ns
        if end_ns is not None:
            self.end_ns = end_ns
        if self.end_ns is None:
            self.end_ns = self.lips.end_ns + ROUNDING_NS

    def pull_frame(self) -> Frame | None:
        """The avatar's next frame, speaking; None while its lips are not known yet, and after the end (`ended`)."""
        target = self._peek()
        if self.ended or (self.end_ns is None and target.frame.pts_ns > self.lips.end_ns):
            return None
        self._next = None
        return self.speak(target)

    @property
    def knows_face(self) -> bool:
        """Whether a face has been found: in the avatar's first pictures, or in one that was to be edited."""
        return self._identity.identity is not None

    @property
    def ended(self) -> bool:
        """Whether the avatar has given its last frame of this speech."""
        return self.end_ns is not None and self._peek().frame.pts_ns > self.end_ns - ROUNDING_NS

    def frames(self) -> Generator[Frame, None, None]:
        """All frames up to the end, after `finish`: as pull_frame gives them, but four at a time, and every stage in its own thread."""
        ahead = read_ahead(self._until_end(), 2 * BATCH)
        edited = read_ahead(self._edit_in_batches(ahead), BATCH)
        try:
            for target, image in edited:
                yield self.paint(target, image)
        finally:
            edited.close()

    def lip_sync(self, frame: Frame) -> Frame:
        """A live frame with the lips of its pts; the frame itself where there is no face or nothing has been pushed."""
        return self.speak(self.track(frame))

    def track(self, frame: Frame) -> Target:
        """A live frame with its face; frames come in order."""
        with self.times.stage("face"):
            box = self._tracker.update(frame.luma, frame.pts_ns)
        with self.times.stage("crop"):
            target = Target.of(frame, box, self.networks.crop_size)
        if target.crop is None:
            self._identity = GrowingIdentity(self.networks)  # who comes next may be somebody else
        return target

    def speak(self, target: Target) -> Frame:
        """The target's frame with the lips of its pts. Targets come in order: older lips are forgotten."""
        self.lips.forget(target.frame.pts_ns - KEPT_LIPS_NS)
        return self.paint(target, self.edit([target])[0])

    def edit(self, targets: list[Target]) -> list[Edited | None]:
        """The edited crops, float32 [S, S, 3] in 0 to 255, of targets; None where there is no face, or no lips yet."""
        return self._begin(targets)()

    def _begin(self, targets: list[Target]) -> Callable[[], list[Edited | None]]:
        """`edit`, when it is asked for: a GPU computes until then."""
        lips = [self.lips.at(target.frame.pts_ns) for target in targets]
        faces = [i for i, target in enumerate(targets) if target.crop is not None and lips[i] is not None]
        if not faces:
            return lambda: [None] * len(targets)
        with self.times.stage("networks"):
            for i in faces:
                identity = self._identity_for(targets[i])
            known = self.avatar.latents if self.avatar is not None else None
            pictures = begin_mouths(self.networks, [targets[i] for i in faces], np.stack([lips[i] for i in faces]), identity, known)

        def finish() -> list[Edited | None]:
            with self.times.stage("networks"):
                made = dict(zip(faces, pictures()))
            return [made.get(i) for i in range(len(targets))]

        return finish

    def paint(self, target: Target, edited: Edited | None) -> Frame:
        """The target's frame with its edited crop pasted back; the frame itself for None."""
        if edited is None:
            return target.frame
        with self.times.stage("paste"):
            return target.paint(edited)

    def _append(self, lips: np.ndarray) -> None:
        for vector in lips:
            self.lips.append(self._speech_start_ns + self._speech_steps * STEP_NS, vector)
            self._speech_steps += 1

    def _lips_of_face(self) -> FaceLips:
        return lips_of(self._identity.identity, self.networks)

    def _identity_for(self, target: Target) -> Identity:
        assert target.crop is not None
        return self._identity.see(target.crop.image, target.frame.pts_ns, target.index)

    def _peek(self) -> Target:
        if self._next is None:
            if self._targets is None:
                raise ValueError("no avatar: call use_avatar first")
            self._next = next(self._targets)
        return self._next

    def _until_end(self) -> Iterator[Target]:
        while not self.ended:
            target, self._next = self._peek(), None
            yield target

    def _edit_in_batches(self, targets: Generator[Target, None, None]) -> Iterator[tuple[Target, Edited | None]]:
        """In order; a batch is begun before the one before it is asked for, so that a GPU has no pause between them."""
        begun: deque[tuple[list[Target], Callable[[], list[Edited | None]]]] = deque()
        try:
            while batch := list(islice(targets, BATCH)):
                begun.append((batch, self._begin(batch)))
                if len(begun) > BATCHES_AHEAD:
                    batch, finish = begun.popleft()
                    yield from zip(batch, finish())
            for batch, finish in begun:
                yield from zip(batch, finish())
        finally:
            targets.close()

    def _new_detector(self) -> Detector:
        return HaarDetector() if self._detector_path is None else YuNetDetector(self._detector_path)
