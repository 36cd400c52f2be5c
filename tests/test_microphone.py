"""The microphone, through a stand-in for PortAudio, and what is said where there is none."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from flashlips_edge.media import microphone
from flashlips_edge.pump.clock import SECOND_NS, ManualClock
from flashlips_edge.pump.mailbox import ClosedError


class PortAudioError(Exception):
    pass


class InputStream:
    """As sounddevice's: calls back with float32 [n, 1]."""

    def __init__(self, samplerate: int, channels: int, dtype: str, blocksize: int, callback):
        assert (samplerate, channels, dtype) == (16000, 1, "float32")
        self.blocksize, self.callback = blocksize, callback

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass

    def speak(self, value: float) -> None:
        block = np.full((self.blocksize, 1), value, np.float32)
        self.callback(block, len(block), None, None)
        block[:] = 9  # PortAudio uses its buffer again


def sounddevice(check=lambda **_: None) -> SimpleNamespace:
    return SimpleNamespace(check_input_settings=check, InputStream=InputStream, PortAudioError=PortAudioError)


def test_blocks_come_in_order_and_the_oldest_are_dropped(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice())
    assert microphone.why_none() is None
    with microphone.find(ManualClock()) as source:
        for i in range(60):
            source._stream.speak(i)
        blocks = [source.read(SECOND_NS) for _ in range(50)]
        with pytest.raises(TimeoutError):
            source.read(0)
    assert [block[0] for block in blocks] == list(range(10, 60))
    assert all(block.shape == (640,) and (block == block[0]).all() for block in blocks)
    assert (source.counters.entered, source.counters.dropped) == (60, 10)
    with pytest.raises(ClosedError):
        source.read(0)


def fail(**_: object) -> None:
    raise PortAudioError("Error querying device -1")


@pytest.mark.parametrize(
    ("module", "words"),
    [(None, "sounddevice is not installed"), (sounddevice(fail), "this machine has no sound input")],
    ids=["no package", "no device"],
)
def test_no_microphone_is_none_and_a_sentence(monkeypatch, module, words: str):
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert microphone.find() is None
    assert words in microphone.why_none()


def test_no_portaudio_is_a_sentence(monkeypatch):
    class Loader:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Loader(), *sys.meta_path])
    assert microphone.find() is None
    assert "apt-get install libportaudio2" in microphone.why_none()
