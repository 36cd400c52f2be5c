"""The embedding API: a face that speaks what is pushed, live, until it is closed.

    with LipSync.open("nano", avatar="face.mp4", loudspeaker=True) as face:
        face.push_audio(pcm, 24_000)              # any rate, int16 or float32, mono or more, in pieces of any length
        face.say_silence()                        # that was the whole sentence
        for frame in face.frames():               # uint8 RGB frame.image, frame.pts_ns: 25 a second, until it is closed
            ...

Media time: nanoseconds of sound that was heard since `open`. It always runs, silence is sound too, and it is the only clock: frames
are picked by it, and frames and sound carry it as their pts.

Ownership and threads: a session owns its threads, its camera or avatar and its sinks, and `close` ends them. Any thread may call any
method. `frames` and `aframes` may be iterated by several readers, each of which gets the newest frame; a slow one misses frames and
holds nobody up. A callback or a sink is called in a thread of its own. Several sessions on one bundle share its networks.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.face.detect import Detector, HaarDetector, YuNetDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.live.faces import AvatarFace, CameraFace, Face
from flashlips_edge.live.picture_line import PictureLine
from flashlips_edge.live.show import Show
from flashlips_edge.live.sinks import Sink, SinkLine
from flashlips_edge.live.sound_out import SoundOut
from flashlips_edge.live.speech_line import SpeechLine
from flashlips_edge.live.stats import Stats
from flashlips_edge.media.camera_feed import CameraFeed
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, Clock, MonotonicClock
from flashlips_edge.pump.mailbox import ClosedError, Mailbox
from flashlips_edge.pump.playback import Playback
from flashlips_edge.pump.worker import LOOK_NS, Worker
from flashlips_edge.signature import open_bundle
from flashlips_edge.talking.avatar_folder import AvatarFolder
from flashlips_edge.talking.looped import LoopedAvatar
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.talker import PICTURE_GRAPHS
from flashlips_edge.talking.target import Target

SOUND_RATE_HZ = 48_000
WATCH_NS = SECOND_NS // 4
STILL_NS = SECOND_NS // 2  # a watchdog that comes later than this was not let run, and neither was what it watches
LOAD_S = 10  # for networks that are being loaded when the session is closed


class LipSync:
    """One live face.

    width, height, frame_rate   of the frames; pixels, a Fraction
    sample_rate_hz              of the sound as it is heard: mono
    networks                    shared by all sessions on the bundle
    """

    def __init__(
        self,
        bundle: Bundle,
        avatar: str | Path | None = None,
        camera: int | str | None = None,
        idle: str | Path | None = None,
        loudspeaker: bool = False,
        threads: int = 2,
        detector: str | Path | None = None,
        clock: Clock | None = None,
    ):
        if (avatar is None) == (camera is None):
            raise UserError("LipSync: give either an avatar or a camera" + (", not both" if avatar is not None else ""))
        if idle is not None and camera is None:
            raise UserError(f"LipSync: idle {idle} stands in for a camera; with an avatar, its own idle clip is shown")
        self._clock = clock or MonotonicClock()
        self._opened_ns = self._watched_ns = self._clock.now_ns()
        self._lock = threading.Lock()
        self._closed, self._ready = threading.Event(), threading.Event()
        self._readers: list[Mailbox[Frame]] = []
        self._sinks: dict[str, SinkLine] = {}
        self._ended: dict[str, str] = {}  # sinks that ended by themselves, and why
        self._detector_path = detector
        self._driver: FaceTracker | None = None
        self.networks = Networks(bundle, threads)
        self.networks.load(*PICTURE_GRAPHS)
        with ExitStack() as stack:
            self._face = self._open_face(avatar, camera, idle)
            stack.callback(self._face.close)
            self.width, self.height = self._face.width, self._face.height
            self.frame_rate: Fraction = self._face.frame_rate
            self.sample_rate_hz = SOUND_RATE_HZ
            self._playback = Playback(self._clock, SOUND_RATE_HZ, self._hand_out_sound)
            self._speech = SpeechLine(self.networks, self._playback, self._face.lips, self._clock)
            self._pictures = PictureLine(self.networks, self._face, self._speech, self._playback, self._clock)
            self._show = Show(self._pictures, self._playback, self._clock, self._hand_out)
            self._sound_out = SoundOut(self._playback, self._clock, loudspeaker)
            stack.callback(self._sound_out.close)
            workers = {
                "sound out": Worker("sound out", self._sound_out.poll, self._clock),
                "show": Worker("show", self._show.poll, self._clock),
                "pictures": Worker("pictures", self._pictures.poll, self._clock),
                "speech": Worker("speech", self._speech.poll, self._clock, recover=self._speech.recover),
            }
            self._workers = workers
            self._watchdog = Worker("watchdog", self._watch, self._clock)
            self._speech.on_push(workers["speech"].wake)
            # No daemon: an interpreter that ends while a network is being loaded crashes, so it waits for this one.
            loader = threading.Thread(target=self._load_speech, name="load speech")
            for worker in (*workers.values(), self._watchdog):
                stack.callback(worker.join)
                stack.callback(worker.stop)
                if worker is not workers["speech"]:
                    worker.start()
            loader.start()
            stack.callback(loader.join, LOAD_S)
            self._stack = stack.pop_all()
        atexit.register(self.close)  # for the same reason nothing may run in a network's code then

    @staticmethod
    def open(
        bundle: str | Path | None = None,
        *,
        avatar: str | Path | None = None,
        camera: int | str | None = None,
        idle: str | Path | None = None,
        loudspeaker: bool = False,
        require_signature: str | Path | None = None,
        on_frame: Callable[[Frame], None] | None = None,
        threads: int = 2,
        detector: str | Path | None = None,
        clock: Clock | None = None,
    ) -> LipSync:
        """A session whose first frame is on its way.

        bundle       networks: a shipped bundle's name or a folder; the personal avatar's own, else "nano"
        avatar       a recorded face: a video, a folder of pictures, or a prepared avatar (python -m flashlips_edge.prepare)
        camera       or a live face: an index, a device, a URL
        idle         what stands in while the camera gives no picture: a video or a prepared avatar; else its last picture
        loudspeaker  let the sound be heard here; otherwise only sinks hear it, at the pace of `clock`
        require_signature  a public key (flashlips_edge.signature): networks that its holder did not sign are refused
        on_frame     is called with every frame, in a thread of its own
        threads      of the networks
        detector     a YuNet face detector (.onnx); else OpenCV's Haar cascade

        Raises:
            UserError: what cannot be opened, in one sentence.
        """
        folder = AvatarFolder.open(avatar) if avatar is not None else None
        if bundle is None:
            bundle = folder.bundle if folder is not None and folder.bundle is not None else "nano"
        session = LipSync(open_bundle(bundle, require_signature), avatar, camera, idle, loudspeaker, threads, detector, clock)
        if on_frame is not None:
            session.add_sink("callback", _Callback(on_frame))
        return session

    def __enter__(self) -> LipSync:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def push_audio(self, pcm: np.ndarray, sample_rate_hz: int) -> None:
        """More speech: int16, or float in -1 to 1, [n] or [n, channels]. It is heard after what was pushed before, and never twice.

        Raises:
            UserError: a shape, type or rate that cannot be; five minutes of sound wait already.
        """
        self._check_open("push_audio")
        self._speech.push(pcm, sample_rate_hz)

    def push_face(self, frame: Frame) -> None:
        """One more frame of another face, live: its lips are shown from now on, and sound that is pushed is only heard. One thread."""
        self._check_open("push_face")
        if self._driver is None:
            self._driver = FaceTracker(self._new_detector())
        box = self._driver.update(frame.luma, frame.pts_ns)
        crop = Target.of(frame, box, self.networks.crop_size).crop
        if crop is not None:
            self._speech.drive(self.networks.lips(crop.image[None])[0])

    def say_silence(self) -> None:
        """All that was pushed is the whole sentence: finish it without waiting for more."""
        self._check_open("say_silence")
        self._speech.end_sentence()

    def interrupt(self) -> None:
        """Be silent at once and close the mouth; what was pushed and not yet heard is forgotten."""
        self._check_open("interrupt")
        self._speech.interrupt()

    def play(self, clip: str) -> None:
        """Show another clip of the avatar, once, from the next picture on. UserError names the clips there are."""
        self._check_open("play")
        if not isinstance(self._face, AvatarFace):
            raise UserError(f"play {clip!r}: a camera has no clips; open an avatar")
        self._face.avatar.play(clip)

    @property
    def clips(self) -> tuple[str, ...]:
        """What `play` takes."""
        return self._face.avatar.clips if isinstance(self._face, AvatarFace) else ()

    @property
    def clip(self) -> str | None:
        """The clip that is shown; None with a camera."""
        return self._face.avatar.showing if isinstance(self._face, AvatarFace) else None

    @property
    def epoch(self) -> int:
        """How often it was interrupted."""
        return self._speech.epoch

    def frames(self) -> Iterator[Frame]:
        """The newest frame, again and again, until the session is closed. Each call's iterator is a reader of its own."""
        return (frame for frame in self.frames_or_none() if frame is not None)

    def frames_or_none(self) -> Iterator[Frame | None]:
        """`frames`, and None whenever no frame came for a quarter of a second: for a reader that looks at other things too."""
        reader = self._new_reader()
        try:
            while True:
                try:
                    yield reader.get(LOOK_NS)
                except TimeoutError:
                    yield None
                except ClosedError:
                    return
        finally:
            self._forget_reader(reader)

    async def aframes(self) -> AsyncIterator[Frame]:
        """`frames` for asyncio."""
        reader = self._new_reader()
        try:
            while True:
                try:
                    yield await asyncio.to_thread(reader.get, LOOK_NS)
                except TimeoutError:
                    continue
                except ClosedError:
                    return
        finally:
            self._forget_reader(reader)

    def add_sink(self, name: str, sink: Sink) -> None:
        """Hand every frame and all sound to `sink` from now on, in a thread of its own; the session closes it."""
        self._check_open("add_sink")
        with self._lock:
            if name in self._sinks:
                raise ValueError(f"there is a sink {name!r} already")
            self._sinks = {**self._sinks, name: SinkLine(name, sink, self._clock)}
            self._ended.pop(name, None)

    def remove_sink(self, name: str) -> str | None:
        """Hand on what waits for the sink and close it; gives its problem, in one sentence, if it had one."""
        with self._lock:
            line = self._sinks.get(name)
            self._sinks = {other: sink for other, sink in self._sinks.items() if other != name}
            problem = self._ended.pop(name, None)
        if line is None:
            return problem
        line.close()
        return line.problem

    def stats(self) -> Stats:
        """How it goes: counters, measurements, problems."""
        show, pictures, speech = self._show, self._pictures, self._speech
        with self._lock:
            sinks, problems = self._sinks, dict(self._ended)
        found = {
            **{name: worker.problem for name, worker in self._workers.items()},
            "pictures": pictures.problem or self._workers["pictures"].problem,
            "face": self._face.problem,
            "sound out": self._sound_out.problem or self._workers["sound out"].problem,
            **{f"sink {name}": line.problem for name, line in sinks.items()},
        }
        counters = {"sound in": speech.pushes, "lips": speech.counters, "pictures": pictures.counters, "show": show.counters}
        counters["face"] = self._face.counters
        for name, line in sinks.items():
            counters[f"sink {name}"], counters[f"sink {name} sound"] = line.counters, line.sound
        return Stats(
            media_ns=self._playback.position_ns(),
            level=pictures.ladder.level,
            epoch=speech.epoch,
            speaking=speech.speaking,
            counters={name: replace(counted) for name, counted in counters.items()},
            gauges={
                "offset_ms_p50": show.offset_ms.percentile(50),
                "offset_ms_p99": show.offset_ms.percentile(99),
                "frame_gap_ms_max": show.gap_ms.largest,
                "first_frame_ms": (show.first_ns - self._opened_ns) / 1e6 if show.first_ns is not None else 0.0,
                "since_frame_ms": (self._clock.now_ns() - show.shown_ns) / 1e6 if show.first_ns is not None else 0.0,
                "latency_ms_p50": speech.latency_ms.percentile(50),
                "latency_ms_p95": speech.latency_ms.percentile(95),
                "picture_ms_p50": pictures.took_ms.percentile(50),
                "picture_ms_p95": pictures.took_ms.percentile(95),
                "sound_queued_ms": self._playback.queued_ns / 1e6,
                "pictures_edited_total": float(pictures.edited),
                "level_down_total": float(pictures.ladder.steps[0]),
                "level_up_total": float(pictures.ladder.steps[1]),
                "threads": float(threading.active_count()),
            },
            restarts={name: worker.restarts for name, worker in self._workers.items()},
            problems={**problems, **{name: problem for name, problem in found.items() if problem}},
        )

    @property
    def stuck(self) -> tuple[str, ...]:
        """The stages that hang now, or were given up."""
        return tuple(name for name, worker in self._workers.items() if worker.stuck)

    @property
    def ready(self) -> bool:
        """Whether the networks of speech are loaded: what is pushed before waits for them."""
        return self._ready.is_set()

    @property
    def waiting_ns(self) -> int:
        """How much of what was pushed waits to be heard."""
        return self._speech.waiting_ns

    @property
    def said_everything(self) -> bool:
        """Whether all that was pushed has been heard, and the mouth is closed."""
        return not self._speech.speaking

    @property
    def sinks(self) -> tuple[str, ...]:
        """Names of the sinks that take frames now."""
        return tuple(self._sinks)

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @property
    def healthy(self) -> bool:
        """Whether frames flow and no stage hangs."""
        flows = self._show.first_ns is not None and self._clock.now_ns() - self._show.shown_ns < 2 * SECOND_NS
        return flows and not self._closed.is_set() and not self.stuck

    def close(self) -> None:
        """End everything, within seconds whatever hangs. May be called twice."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            readers, sinks = list(self._readers), self._sinks
        for reader in readers:
            reader.close()
        atexit.unregister(self.close)
        with suppress(Exception):
            self._stack.close()
        for line in sinks.values():
            line.end()
        for line in sinks.values():
            line.close()

    def _new_detector(self) -> Detector:
        return HaarDetector() if self._detector_path is None else YuNetDetector(self._detector_path)

    def _open_face(self, avatar: str | Path | None, camera: int | str | None, idle: str | Path | None) -> Face:
        def looped(path: str | Path) -> AvatarFace:
            return AvatarFace(LoopedAvatar.open(path, self.networks, self._new_detector()), self.networks)

        if avatar is not None:
            return looped(avatar)
        assert camera is not None
        stand_in = looped(idle) if idle is not None else None
        return CameraFace(CameraFeed(camera, self._clock), self.networks, self._new_detector, stand_in)

    def _load_speech(self) -> None:
        """Load the networks of speech, then start its worker: neither who opens a session nor the watchdog waits for them."""
        try:
            self._speech.load()
        except Exception as error:
            self._ended["speech"] = f"the networks of speech cannot be loaded: {error}".splitlines()[0]
            return
        self._ready.set()
        if not self._closed.is_set():
            self._workers["speech"].start()

    def _hand_out(self, frame: Frame) -> None:
        for reader in self._readers:
            with suppress(ClosedError):
                reader.put(frame)
        for line in self._sinks.values():
            line.put(frame)

    def _hand_out_sound(self, samples: np.ndarray, position: int) -> None:
        for line in self._sinks.values():
            line.put_sound(samples, position * SECOND_NS // SOUND_RATE_HZ)

    def _watch(self) -> int:
        self._forgive()
        for worker in self._workers.values():
            worker.watch()
        for name, line in self._sinks.items():
            if line.ended:
                line.end()  # one that hung ends when its call returns
                with self._lock:
                    self._sinks = {other: sink for other, sink in self._sinks.items() if other != name}
                    self._ended[name] = line.problem or f"{name} ended"
        return WATCH_NS

    def _forgive(self) -> None:
        """A machine that was suspended, or a process that was stopped, has not hung."""
        now_ns = self._clock.now_ns()
        still_ns = now_ns - self._watched_ns - WATCH_NS
        self._watched_ns = now_ns
        if still_ns > STILL_NS:
            for worker in self._workers.values():
                worker.forgive(still_ns)
            for line in self._sinks.values():
                line.forgive(still_ns)

    def _new_reader(self) -> Mailbox[Frame]:
        reader: Mailbox[Frame] = Mailbox(self._clock, bound=1)
        with self._lock:
            if self._closed.is_set():
                reader.close()
            self._readers = [*self._readers, reader]
        return reader

    def _forget_reader(self, reader: Mailbox[Frame]) -> None:
        with self._lock:
            self._readers = [other for other in self._readers if other is not reader]

    def _check_open(self, method: str) -> None:
        if self._closed.is_set():
            raise UserError(f"{method}: this session is closed")


class _Callback:
    """A function as a sink for frames."""

    def __init__(self, on_frame: Callable[[Frame], None]):
        self.write = on_frame

    def write_audio(self, samples: np.ndarray, pts_ns: int) -> None: ...

    def close(self) -> None: ...
