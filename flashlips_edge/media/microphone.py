"""Sound from a microphone, where there is one."""

from types import TracebackType
from typing import Any

import numpy as np

from flashlips_edge.media.audio_file import SPEECH_RATE_HZ
from flashlips_edge.pump.clock import Clock, MonotonicClock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.mailbox import Mailbox

BLOCK = SPEECH_RATE_HZ // 25  # samples of one lips step
BLOCKS = 50  # two seconds wait for their reader at most; then the oldest are dropped


class Microphone:
    """The default input, mono at 16 kHz, while in the `with` block. PortAudio's thread puts, `read` takes.

    counters    blocks in, out, dropped
    """

    def __init__(self, sounddevice: Any, clock: Clock | None = None):
        self._blocks: Mailbox[np.ndarray] = Mailbox(clock or MonotonicClock(), bound=BLOCKS)
        self._stream = sounddevice.InputStream(samplerate=SPEECH_RATE_HZ, channels=1, dtype="float32", blocksize=BLOCK, callback=self._take)

    @property
    def counters(self) -> Counters:
        return self._blocks.counters

    def read(self, timeout_ns: int) -> np.ndarray:
        """The next block, float32 [640]. Raises TimeoutError if none comes until the deadline, ClosedError after the end."""
        return self._blocks.get(timeout_ns)

    def __enter__(self) -> "Microphone":
        self._stream.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.stop()
        self._stream.close()
        self._blocks.close()

    def _take(self, block: np.ndarray, n: int, time: Any, status: Any) -> None:
        self._blocks.put(block[:, 0].copy())


def find(clock: Clock | None = None) -> Microphone | None:
    """The default microphone, or None where there is none; `why_none` says why."""
    sounddevice, _ = _probe()
    return None if sounddevice is None else Microphone(sounddevice, clock)


def why_none() -> str | None:
    """One sentence: what is missing for a microphone; None if nothing is."""
    return _probe()[1]


def _probe() -> tuple[Any, str | None]:
    """The sounddevice module if it has an input that takes 16 kHz mono, and otherwise what is wrong."""
    try:
        import sounddevice
    except ImportError:
        return None, "no microphone: sounddevice is not installed (pip install 'flashlips-edge[live]')"
    except OSError:
        return None, "no microphone: PortAudio is missing (sudo apt-get install libportaudio2)"
    try:
        sounddevice.check_input_settings(samplerate=SPEECH_RATE_HZ, channels=1, dtype="float32")
    except (sounddevice.PortAudioError, ValueError):
        return None, "no microphone: this machine has no sound input that records mono at 16 kHz"
    return sounddevice, None
