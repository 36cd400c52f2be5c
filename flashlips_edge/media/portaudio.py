"""PortAudio through sounddevice, which is imported only here and only when used: devices that come and go, a close that cannot hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

from flashlips_edge.pump.clock import SECOND_NS, Clock

LOST_NS = 2 * SECOND_NS  # a device whose thread has not called for this long has gone
CLOSE_NS = 2 * SECOND_NS  # for a driver to let its device go

Direction = Literal["input", "output"]
NAMES = {"input": "microphone", "output": "loudspeaker"}
DOES = {"input": "sound input that records", "output": "sound output that plays"}

_lock = threading.Lock()
_lines = 0  # open ones; while there is any, PortAudio cannot look for devices again


def probe(direction: Direction, sample_rate_hz: int) -> tuple[Any, str | None]:
    """The sounddevice module if there is a device for mono float32 at this rate, otherwise one sentence that says what is missing."""
    name = NAMES[direction]
    try:
        import sounddevice
    except ImportError:
        return None, f"no {name}: sounddevice is not installed (pip install 'flashlips-edge[live]')"
    except OSError:
        return None, f"no {name}: PortAudio is missing (sudo apt-get install libportaudio2)"
    check = getattr(sounddevice, f"check_{direction}_settings")
    for again in (False, True):
        if again and not _look_for_devices(sounddevice):
            break
        try:
            check(samplerate=sample_rate_hz, channels=1, dtype="float32")
            return sounddevice, None
        except (sounddevice.PortAudioError, ValueError):
            pass
    return None, f"no {name}: this machine has no {DOES[direction]} mono at {sample_rate_hz / 1000:g} kHz"


def _look_for_devices(sounddevice: Any) -> bool:
    """Let PortAudio list its devices anew, which it does only when it starts; False while one is in use."""
    with _lock:
        if _lines:
            return False
        sounddevice._terminate()
        sounddevice._initialize()
        return True


class Line:
    """A running stream from or to the default device, mono float32.

    call(samples, status)    samples float32 [n], to be read or filled; in PortAudio's thread
    latency_ns               between `call` and the air, as the device says

    Raises what sounddevice raises if the device cannot be opened.
    """

    def __init__(
        self, sounddevice: Any, direction: Direction, sample_rate_hz: int, block: int, clock: Clock, call: Callable[[Any, Any], None]
    ):
        self._clock, self._call = clock, call
        self._called_ns = clock.now_ns()
        self._finished = self._closed = False
        make = sounddevice.InputStream if direction == "input" else sounddevice.OutputStream
        _count(1)
        try:
            self._stream = make(
                samplerate=sample_rate_hz,
                channels=1,
                dtype="float32",
                blocksize=block,
                latency="low",
                callback=self._on_call,
                finished_callback=self._on_finished,
            )
        except BaseException:
            _count(-1)
            raise
        try:
            self._stream.start()
            self.latency_ns = round(self._stream.latency * SECOND_NS)
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> str | None:
        """A clause: what became of the device; None while it works."""
        if self._finished:
            return "the device has gone"
        if self._clock.now_ns() - self._called_ns > LOST_NS:
            return f"the device has not answered for {LOST_NS // SECOND_NS} s"
        return None

    def close(self) -> None:
        """Let the device go. A driver that hangs is left behind after CLOSE_NS."""
        with _lock:
            if self._closed:
                return
            self._closed = True
        closing = threading.Thread(target=self._close, name="sound device, close", daemon=True)
        closing.start()
        closing.join(CLOSE_NS / SECOND_NS)

    def _close(self) -> None:
        try:
            self._stream.abort()
        finally:
            self._stream.close()
            _count(-1)

    def _on_call(self, block: Any, n: int, time: Any, status: Any) -> None:
        self._called_ns = self._clock.now_ns()
        self._call(block[:, 0], status)

    def _on_finished(self) -> None:
        self._finished = True


def _count(lines: int) -> None:
    global _lines
    with _lock:
        _lines += lines
