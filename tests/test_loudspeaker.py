"""The loudspeaker, through a stand-in for PortAudio: what is heard, a device that goes, a driver that hangs."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from sound_devices import UNDERRUN, SoundDevices

from flashlips_edge.errors import UserError
from flashlips_edge.media import loudspeaker, microphone, portaudio
from flashlips_edge.media.loudspeaker import Loudspeaker
from flashlips_edge.pump.clock import SECOND_NS, ManualClock


@pytest.fixture
def devices(monkeypatch) -> SoundDevices:
    devices = SoundDevices()
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    return devices


class Counting:
    """Samples 0, 1, 2, ... as they are pulled."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self, n: int) -> np.ndarray:
        self.taken += n
        return np.arange(self.taken - n, self.taken, dtype=np.float32)


def test_every_sample_is_heard_once_and_in_order(devices: SoundDevices):
    with Loudspeaker(Counting()) as speaker:
        (stream,) = devices.streams
        heard = np.concatenate([stream.play() for _ in range(5)])
        assert speaker.lost is None and speaker.underruns == 0
        stream.play(UNDERRUN)
        assert speaker.underruns == 1
    assert np.array_equal(heard, np.arange(2400)), "10 ms at 48 kHz each"
    assert speaker.latency_ns == 20_000_000
    assert not devices.streams and speaker.lost is None


@pytest.mark.parametrize("says_so", [True, False], ids=["PortAudio says so", "it just stops"])
def test_a_loudspeaker_that_goes_is_named_and_found_again(devices: SoundDevices, says_so: bool):
    clock = ManualClock()
    speaker = loudspeaker.find(Counting(), clock=clock)
    for _ in range(300):
        clock.advance(10_000_000)
        devices.streams[0].play()
    assert speaker.lost is None
    devices.unplug(says_so)
    clock.advance(2 * SECOND_NS + 1)
    assert speaker.lost == f"the loudspeaker is lost: the device has {'gone' if says_so else 'not answered for 2 s'}"
    speaker.close()
    assert loudspeaker.find(Counting()) is None
    devices.plugged = True
    with loudspeaker.find(Counting()) as speaker:
        assert len(devices.streams[0].play()) == 480


def test_devices_are_not_listed_anew_under_a_microphone_that_is_heard(devices: SoundDevices):
    with microphone.find(ManualClock()) as source:
        devices.plugged = False
        assert loudspeaker.find(Counting()) is None
        devices.streams[0].speak(3)
        assert source.read(0)[0] == 3


def test_a_pull_that_raises_is_silence_and_named(devices: SoundDevices):
    def pull(n: int) -> np.ndarray:
        raise ValueError("planted")

    with Loudspeaker(pull) as speaker:
        assert not devices.streams[0].play().any()
        assert speaker.lost == "the loudspeaker is lost: its sound could not be had, ValueError: planted"


def test_close_does_not_wait_for_a_driver_that_hangs(devices: SoundDevices, monkeypatch):
    monkeypatch.setattr(portaudio, "CLOSE_NS", SECOND_NS // 10)
    speaker = Loudspeaker(Counting())
    devices.driver.clear()
    closing = threading.Thread(target=speaker.close)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    devices.driver.set()
    for thread in threading.enumerate():
        if thread.name == "sound device, close":
            thread.join(30)
    assert not devices.streams


def test_a_loudspeaker_that_is_taken_is_one_sentence(devices: SoundDevices):
    devices.taken = True
    assert loudspeaker.find(Counting()) is None
    with pytest.raises(UserError, match="^no loudspeaker: it cannot be opened: Error opening stream: Device unavailable$"):
        Loudspeaker(Counting())


@pytest.mark.parametrize(
    ("module", "words"),
    [(None, "sounddevice is not installed"), (SoundDevices(plugged=False), "this machine has no sound output that plays mono at 48 kHz")],
    ids=["no package", "no device"],
)
def test_no_loudspeaker_is_none_and_a_sentence(monkeypatch, module, words: str):
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    assert loudspeaker.find(Counting()) is None
    assert words in loudspeaker.why_none()


def test_sounddevice_is_imported_only_when_used():
    code = "import sys; from flashlips_edge.media import loudspeaker, microphone; assert 'sounddevice' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
