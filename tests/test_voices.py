"""What moves the lips of a live run: sound is held back where it comes faster than it is heard, and what is late is not said."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from sound_devices import SoundDevices

from flashlips_edge.live.inflow import TARGET_NS
from flashlips_edge.live.room import AHEAD_NS
from flashlips_edge.live.speech_line import MARGIN_NS
from flashlips_edge.media import microphone
from flashlips_edge.media.audio_file import SPEECH_RATE_HZ, Sound
from flashlips_edge.media.frames import Frame
from flashlips_edge.pump.clock import SECOND_NS, MonotonicClock
from flashlips_edge.voices import PcmStream, live_voice, recorded_face, recorded_voice

DEADLINE_S = 30.0


class Ear:
    """A session that hears nothing until `hears` is set; what was pushed waits."""

    def __init__(self) -> None:
        self.pushed: list[np.ndarray] = []
        self.hears, self.asked = threading.Event(), threading.Semaphore(0)
        self.closed = False

    @property
    def waiting_ns(self) -> int:
        self.asked.release()
        return 0 if self.hears.is_set() else sum(map(len, self.pushed)) * SECOND_NS // SPEECH_RATE_HZ

    def push_audio(self, pcm: np.ndarray, sample_rate_hz: int) -> None:
        assert sample_rate_hz == SPEECH_RATE_HZ
        self.pushed.append(pcm)

    def say_silence(self) -> None: ...

    @property
    def said_everything(self) -> bool:
        return True


def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(DEADLINE_S / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"not within {DEADLINE_S} s")


def test_a_pipe_that_is_faster_than_speech_is_held_back_and_said_to_its_end() -> None:
    """A text-to-speech program writes a minute of speech in a second."""
    reading, writing = os.pipe()
    sound = np.arange(60 * SPEECH_RATE_HZ, dtype="<i2").tobytes()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(sound)

    ear, writer = Ear(), threading.Thread(target=write)
    voice = live_voice(PcmStream(reading, SPEECH_RATE_HZ, MonotonicClock()), MonotonicClock())
    writer.start()
    voice.start(ear)  # type: ignore[arg-type]
    until(lambda: ear.waiting_ns > AHEAD_NS)
    while ear.asked.acquire(blocking=False):
        pass
    assert ear.asked.acquire(timeout=DEADLINE_S) and ear.asked.acquire(timeout=DEADLINE_S), "it looks again and again"
    assert ear.waiting_ns < AHEAD_NS + SECOND_NS
    ear.hears.set()
    until(lambda: voice.ended)
    assert sum(map(len, ear.pushed)) == pytest.approx(60 * SPEECH_RATE_HZ, abs=SPEECH_RATE_HZ // 100)
    voice.close()
    writer.join(DEADLINE_S)
    os.close(reading)


def test_what_a_microphone_heard_before_the_face_was_there_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be said two seconds late, and all that follows too."""
    devices = SoundDevices()
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    source = microphone.find(MonotonicClock())
    assert source is not None
    ear, voice = Ear(), live_voice(source, MonotonicClock())
    ear.hears.set()
    (stream,) = devices.streams
    for _ in range(100):
        stream.speak(0.1)
    voice.start(ear)  # type: ignore[arg-type]
    until(lambda: source.counters.left >= 100)
    stream.speak(0.5)
    until(lambda: len(ear.pushed) == 1)
    assert ear.pushed[0][0] == pytest.approx(0.5)
    voice.close()


class Onlooker:
    """A face that is told what it shall look like, and notes how far the sound is ahead of that."""

    said_everything = True

    def __init__(self) -> None:
        self.ahead_ns: list[int] = []
        self.said = self.shown = 0

    def push_face(self, frame: Frame) -> None:
        self.shown_ns = frame.pts_ns
        self.shown += 1

    def push_audio(self, pcm: np.ndarray, sample_rate_hz: int) -> None:
        self.said += len(pcm)
        self.ahead_ns.append(self.said * SECOND_NS // sample_rate_hz - self.shown_ns)

    def say_silence(self) -> None: ...


class Film:
    """Pictures at these times, each decoded by `decode`."""

    def __init__(self, times_ns: list[int], decode: Callable[[], object] = lambda: None):
        self.times_ns, self.decode = times_ns, decode
        self.closed_by: str | None = None
        self.left = 0

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.closed_by = threading.current_thread().name

    def __iter__(self) -> Iterator[Frame]:
        for pts_ns in self.times_ns:
            self.decode()
            self.left += 1
            yield Frame(np.zeros((2, 2, 3), np.uint8), pts_ns)


def test_a_recorded_face_ends_within_a_gap_of_its_pictures() -> None:
    face, film = Onlooker(), Film([0, 3600 * SECOND_NS])
    voice = recorded_face(film, None, MonotonicClock())  # type: ignore[arg-type]
    voice.start(face)  # type: ignore[arg-type]
    until(lambda: film.left == 2)
    voice.close()
    assert face.shown == 1 and film.closed_by == "voice"


def test_a_recorded_face_ends_while_a_picture_is_decoded() -> None:
    decoding, decoded = threading.Event(), threading.Event()

    def decode() -> None:
        decoding.set()
        decoded.wait(20)

    film = Film([0, SECOND_NS], decode)
    voice = recorded_face(film, None, MonotonicClock())  # type: ignore[arg-type]
    voice.start(Onlooker())  # type: ignore[arg-type]
    assert decoding.wait(20)
    closing = threading.Thread(target=voice.close)
    closing.start()
    closing.join(0.1)
    assert film.closed_by is None  # its reader is at work
    decoded.set()
    closing.join(20)
    assert not closing.is_alive() and film.closed_by == "voice" and film.left == 1


def test_a_recording_whose_channels_cancel_out_is_said() -> None:
    said = np.sin(np.arange(SPEECH_RATE_HZ)).astype(np.float32)
    ear, voice = Ear(), recorded_voice(Sound(np.stack([said, -said], 1), SPEECH_RATE_HZ), MonotonicClock())
    ear.hears.set()
    voice.start(ear)  # type: ignore[arg-type]
    until(lambda: len(ear.pushed) == 1)
    voice.close()
    assert np.array_equal(ear.pushed[0], said)


def test_sound_of_a_recorded_face_is_said_with_its_pictures() -> None:
    """A little ahead, as much as a live source may be: what is further ahead would be hurried, and come before its lips."""
    film = Film([i * SECOND_NS // 25 for i in range(10)])
    sound = Sound(np.zeros((SPEECH_RATE_HZ, 1), np.float32), SPEECH_RATE_HZ)
    face, voice = Onlooker(), recorded_face(film, sound, MonotonicClock())  # type: ignore[arg-type]
    voice.start(face)  # type: ignore[arg-type]
    until(lambda: voice.ended)
    voice.close()
    assert len(face.ahead_ns) == 10 and MARGIN_NS < min(face.ahead_ns) and max(face.ahead_ns) + MARGIN_NS <= TARGET_NS
