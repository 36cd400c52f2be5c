"""What moves the lips of a live run: recorded sound, sound as it comes, a text, a recorded face, a live face.

Each pushes into a `LipSync` from a thread of its own, from `start` to `close`.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

import numpy as np
import soxr

from flashlips_edge.errors import UserError
from flashlips_edge.live.inflow import TARGET_NS
from flashlips_edge.live.room import wait_for_room
from flashlips_edge.live.speech_line import MARGIN_NS
from flashlips_edge.media.audio_file import SPEECH_RATE_HZ, Sound
from flashlips_edge.media.camera import Camera
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.microphone import Microphone
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.mailbox import ClosedError, Mailbox
from flashlips_edge.pump.pacing import Pace
from flashlips_edge.pump.stage import LOOK_NS, Stage
from flashlips_edge.session import LipSync
from flashlips_edge.tts.voice import Voice as TextVoice

PCM_BYTES = 1 << 14  # read from a pipe at a time, at most
SAID_AHEAD_NS = TARGET_NS - MARGIN_NS  # of the sound of a recorded face: were more waiting, it would be hurried away from the lips
HEADERS = (b"RIFF", b"fLaC", b"OggS", b"ID3")


class Voice:
    """Pushes `pieces(face)`, pairs of sound and rate or frames of another face, as they come. Whoever makes a voice closes it.

    ended   whether all of it has been said and shown
    """

    def __init__(self, pieces: Callable[[LipSync], Iterator[tuple[np.ndarray, int] | Frame]], close: Callable[[], None] = lambda: None):
        self._pieces, self._close = pieces, close
        self._over = threading.Event()
        self._stage: Stage | None = None
        self._face: LipSync | None = None

    def start(self, face: LipSync) -> None:
        self._face = face
        self._stage = Stage("voice", self._pieces(face), self._push)
        self._stage.start()

    @property
    def ended(self) -> bool:
        """Raises what went wrong with the voice."""
        assert self._stage is not None and self._face is not None
        if not self._stage.done:
            return False
        self._stage.join()
        if not self._over.is_set():
            self._over.set()
            self._face.say_silence()
        return self._face.said_everything

    def close(self) -> None:
        if self._stage is not None:
            self._stage.stop()
        self._close()
        if self._stage is not None:
            self._stage.join()

    def _push(self, piece: tuple[np.ndarray, int] | Frame) -> None:
        assert self._face is not None
        if isinstance(piece, Frame):
            self._face.push_face(piece)
        else:
            self._face.push_audio(*piece)


def recorded_voice(sound: Sound, clock: Clock, repeat: bool = False) -> Voice:
    """A sound, over and over if `repeat`."""

    def pieces(face: LipSync) -> Iterator[tuple[np.ndarray, int]]:
        samples = sound.mono()
        while True:
            for start in range(0, len(samples), sound.sample_rate_hz):
                wait_for_room(face, clock)
                yield samples[start : start + sound.sample_rate_hz], sound.sample_rate_hz
            if not repeat:
                return

    return Voice(pieces)


def text_voice(voice: TextVoice, text: str, clock: Clock) -> Voice:
    """A text, spoken as it is synthesised."""

    def pieces(face: LipSync) -> Iterator[tuple[np.ndarray, int]]:
        for pcm, rate_hz in voice.say(text):
            wait_for_room(face, clock)
            yield pcm, rate_hz

    return Voice(pieces, voice.stop)


class _Blocks(Protocol):
    def read(self, timeout_ns: int) -> np.ndarray: ...


def live_voice(source: Microphone | PcmStream, clock: Clock) -> Voice:
    """Sound as it comes from a microphone, or from a pipe, which is held back where it is faster; mono at 16 kHz."""
    source.__enter__()

    def pieces(face: LipSync) -> Iterator[tuple[np.ndarray, int]]:
        heard = False
        if isinstance(source, Microphone):
            with suppress(TimeoutError, ClosedError):
                while True:  # what it heard while the networks were loading is late
                    source.read(0)
        while True:
            try:
                block = source.read(LOOK_NS)
            except TimeoutError:
                continue
            except ClosedError:
                if not heard and isinstance(source, PcmStream) and not source.stopped:
                    raise UserError("--audio -: standard input held no sound; give raw PCM, s16le, mono") from None
                return
            heard = heard or len(block) > 0
            if isinstance(source, PcmStream):
                wait_for_room(face, clock)
            yield block, SPEECH_RATE_HZ

    return Voice(pieces, lambda: source.__exit__(None, None, None))


def recorded_face(video: VideoFile, sound: Sound | None, clock: Clock) -> Voice:
    """The lips, and the sound if it has one, of a face in a video, at its own pace. The voice closes the video."""
    over = threading.Event()

    def pieces(face: LipSync) -> Iterator[tuple[np.ndarray, int] | Frame]:
        pace, said, samples = Pace(clock), 0, sound.mono() if sound is not None else None
        with video:  # who else closes it may find it decoding
            for frame in video:
                pace.wait(frame.pts_ns, over.is_set)
                if over.is_set():
                    return
                yield frame
                if sound is not None and samples is not None:
                    until = (frame.pts_ns + SAID_AHEAD_NS) * sound.sample_rate_hz // SECOND_NS
                    if until > said:
                        yield samples[said:until], sound.sample_rate_hz
                    said = max(said, until)

    return Voice(pieces, over.set)


def live_face(camera: Camera) -> Voice:
    """The lips of a face before another camera. Nothing is heard."""

    def pieces(face: LipSync) -> Iterator[Frame]:
        yield from camera

    return Voice(pieces, camera.close)


class PcmStream:
    """Blocks of raw PCM, signed 16 bit little-endian, mono, as they come from a file descriptor; in the `with` block."""

    def __init__(self, descriptor: int, sample_rate_hz: int, clock: Clock):
        self._descriptor = descriptor
        self._resample = soxr.ResampleStream(sample_rate_hz, SPEECH_RATE_HZ, 1, dtype="float32")
        self._blocks: Mailbox[np.ndarray] = Mailbox(clock, bound=2, newest_wins=False)
        self._stop = threading.Event()
        self._stage = Stage("pcm", self._read(), sink=self._blocks)

    @property
    def stopped(self) -> bool:
        """Whether its reader ended it."""
        return self._stop.is_set()

    def read(self, timeout_ns: int) -> np.ndarray:
        """The next block, float32 [n] at 16 kHz. TimeoutError if none came until the deadline, ClosedError at the end."""
        try:
            return self._blocks.get(timeout_ns)
        except ClosedError:
            self._stage.join()  # raises what was wrong with the stream
            raise

    def __enter__(self) -> PcmStream:
        self._stage.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._stage.stop()
        self._stage.join()

    def _read(self) -> Iterator[np.ndarray]:
        rest = b""
        first = True
        while not self._stop.is_set():
            ready, _, _ = select.select([self._descriptor], [], [], LOOK_NS / SECOND_NS)
            if not ready:
                continue
            chunk = os.read(self._descriptor, PCM_BYTES)
            if first and chunk.startswith(HEADERS):
                raise UserError("--audio -: standard input holds a sound file, not raw PCM; give the file's name instead of -")
            first = False
            data = rest + chunk
            whole = len(data) // 2 * 2
            samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768
            rest = data[whole:]
            yield self._resample.resample_chunk(samples, last=not chunk)
            if not chunk:
                break
