"""The microphone, through a stand-in for PortAudio: blocks, a device that goes and comes back, and what is said where there is none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from sound_devices import SoundDevices

from flashlips_edge.media import microphone
from flashlips_edge.pump.clock import SECOND_NS, ManualClock
from flashlips_edge.pump.mailbox import ClosedError


@pytest.fixture
def devices(monkeypatch) -> SoundDevices:
    devices = SoundDevices()
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    return devices


def until(condition: Callable[[], bool], clock: ManualClock) -> None:
    """Let time pass until the threads have come that far."""
    for _ in range(3000):
        if condition():
            return
        clock.advance(SECOND_NS // 20)
        threading.Event().wait(0.005)
    raise AssertionError("not within 150 s of the clock")


def test_blocks_come_in_order_and_the_oldest_are_dropped(devices: SoundDevices):
    assert microphone.why_none() is None
    with microphone.find(ManualClock()) as source:
        (stream,) = devices.streams
        assert stream.rate_hz == 16000
        for i in range(110):
            stream.speak(i)
        blocks = [source.read(SECOND_NS) for _ in range(100)]
        with pytest.raises(TimeoutError):
            source.read(0)
    assert [block[0] for block in blocks] == list(range(10, 110))
    assert all(block.shape == (320,) and (block == block[0]).all() for block in blocks)
    assert (source.counters.entered, source.counters.dropped) == (110, 10)
    with pytest.raises(ClosedError):
        source.read(0)
    assert not devices.streams
    stream.speak(1)  # one that PortAudio had under way


@pytest.mark.parametrize("says_so", [True, False], ids=["PortAudio says so", "it just stops"])
def test_a_microphone_that_goes_is_named_and_comes_back(devices: SoundDevices, says_so: bool):
    clock = ManualClock()
    with microphone.find(clock) as source:
        devices.streams[0].speak(1)
        devices.unplug(says_so)
        until(lambda: source.lost is not None, clock)
        assert "microphone" in source.lost and "\n" not in source.lost
        until(lambda: not devices.streams, clock)
        assert source.read(0)[0] == 1, "what was heard before is kept"
        with pytest.raises(TimeoutError):
            source.read(0)
        devices.plugged = True
        until(lambda: source.lost is None, clock)
        assert source.reconnects == 1
        devices.streams[0].speak(2)
        assert source.read(0)[0] == 2
    assert not devices.streams


def test_a_microphone_that_is_taken_by_another_is_awaited(devices: SoundDevices):
    clock = ManualClock()
    devices.taken = True
    with microphone.find(clock) as source:
        assert source.lost == "no microphone: it cannot be opened: Error opening stream: Device unavailable"
        devices.taken = False
        until(lambda: source.lost is None, clock)
        devices.streams[0].speak(1)
        assert source.read(0)[0] == 1


@pytest.mark.parametrize(
    ("module", "words"),
    [(None, "sounddevice is not installed"), (SoundDevices(plugged=False), "this machine has no sound input that records mono at 16 kHz")],
    ids=["no package", "no device"],
)
def test_no_microphone_is_none_and_a_sentence(monkeypatch, module, words: str):
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert microphone.find() is None
    assert words in microphone.why_none()


def test_a_microphone_plugged_in_later_is_found(monkeypatch):
    devices = SoundDevices(plugged=False)
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    assert microphone.find() is None
    devices.plugged = True
    assert microphone.why_none() is None


def test_no_portaudio_is_a_sentence(monkeypatch):
    class Loader:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Loader(), *sys.meta_path])
    assert microphone.find() is None
    assert "apt-get install libportaudio2" in microphone.why_none()


def test_the_real_library_gives_an_answer():
    pytest.importorskip("sounddevice", reason="no PortAudio: sudo apt-get install libportaudio2", exc_type=(ImportError, OSError))
    why = microphone.why_none()
    assert why is None or why.startswith("no microphone: ")
    with microphone.find() or pytest.skip(why) as source:
        assert source.read(5 * SECOND_NS).dtype == np.float32
