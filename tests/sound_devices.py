"""A stand-in for the sounddevice package: one input and one output, which a test plugs, unplugs, plays and speaks into."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np

FINE = SimpleNamespace(output_underflow=False)
UNDERRUN = SimpleNamespace(output_underflow=True)


class PortAudioError(Exception):
    pass


class Stream:
    """As sounddevice's: its callback takes float32 [n, 1]."""

    latency = 0.02

    def __init__(self, devices: SoundDevices, callback: Any, finished_callback: Any, **settings: Any):
        devices.check(**{name: settings[name] for name in ("samplerate", "channels", "dtype")})
        if devices.taken:
            raise PortAudioError("Error opening stream:\nDevice unavailable")
        self.devices, self.callback, self.finished = devices, callback, finished_callback
        self.blocksize, self.rate_hz = settings["blocksize"], settings["samplerate"]
        self.running = False
        devices.streams.append(self)

    def start(self) -> None:
        self.running = True

    def abort(self) -> None:
        self.devices.driver.wait(60)
        self.running = False

    def close(self) -> None:
        self.running = False
        if self in self.devices.streams:
            self.devices.streams.remove(self)

    def speak(self, value: float) -> None:
        block = np.full((self.blocksize, 1), value, np.float32)
        self.callback(block, len(block), None, FINE)
        block[:] = 9  # PortAudio uses its buffer again

    def play(self, status: SimpleNamespace = FINE) -> np.ndarray:
        block = np.full((self.blocksize, 1), 9, np.float32)
        self.callback(block, len(block), None, status)
        return block[:, 0]


class SoundDevices:
    """Put it into sys.modules as `sounddevice`. `plugged` is what is really there; PortAudio learns of it when it starts."""

    PortAudioError = PortAudioError

    def __init__(self, plugged: bool = True):
        self.plugged = self.known = plugged
        self.taken = False
        self.streams: list[Stream] = []
        self.driver = threading.Event()  # cleared: the driver hangs when a stream is closed
        self.driver.set()

    def unplug(self, says_so: bool = True) -> None:
        """`says_so`: whether PortAudio notices; else the callbacks just stop."""
        self.plugged = False
        for stream in list(self.streams):
            stream.running = False
            if says_so:
                stream.finished()

    def check(self, samplerate: int, channels: int, dtype: str) -> None:
        assert (channels, dtype) == (1, "float32") and samplerate in (16000, 48000)
        if not (self.plugged and self.known):
            raise PortAudioError("Error querying device -1")

    check_input_settings = check_output_settings = check

    def InputStream(self, **settings: Any) -> Stream:  # noqa: N802
        return Stream(self, **settings)

    OutputStream = InputStream

    def _terminate(self) -> None:
        assert not self.streams, "this would end what is playing"
        self.known = False

    def _initialize(self) -> None:
        self.known = self.plugged
