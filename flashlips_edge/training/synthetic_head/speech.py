"""Speech by espeak-ng with the time of every phoneme, from the library's own events."""

from __future__ import annotations

import ctypes
import ctypes.util
import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import soxr

from flashlips_edge.errors import UserError

SAMPLE_RATE_HZ = 16000
PAUSE = "_"

# from espeak-ng/speak_lib.h
_SYNCHRONOUS, _PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 2, 0x0001, 0x0002, 0x8000
_EVENT_END, _EVENT_PHONEME = 0, 7
_CHARACTERS_UTF8 = 1
_RATE, _PITCH = 1, 3


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),  # a priority byte, then the first language's tag
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Phoneme(NamedTuple):
    """One sound in IPA with its time; ``_`` is a pause."""

    phoneme: str
    start_s: float
    end_s: float


class _Espeak:
    """The library, opened once per process: it holds one global voice, so one sentence at a time."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library = ctypes.CDLL(name)
        except OSError:
            raise UserError("espeak-ng is missing: sudo apt-get install espeak-ng") from None
        self.rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT)
        if self.rate_hz <= 0:
            raise UserError("espeak-ng cannot start: its voices are missing: sudo apt-get install espeak-ng-data")
        self._lock = threading.Lock()
        self._samples: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        self._identifiers = self._voices()
        self._callback = _Callback(self._hear)  # kept, or it would be collected while the library holds it
        self._library.espeak_SetSynthCallback(self._callback)

    def _voices(self) -> dict[str, str]:
        """Language tag to the library's own name of its voice."""
        voices = self._library.espeak_ListVoices(None)
        found: dict[str, str] = {}
        i = 0
        while voices[i]:
            voice = voices[i].contents
            tag = ctypes.string_at(voice.languages + 1).decode()
            found.setdefault(tag.lower(), voice.identifier.decode())
            i += 1
        return found

    def _hear(self, samples, count, events) -> int:  # type: ignore[no-untyped-def]
        if samples and count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_END:
            if events[i].type == _EVENT_PHONEME:
                self._events.append((events[i].sample, events[i].name.decode("utf-8", "ignore")))
            i += 1
        return 0

    def say(self, text: str, voice: str, words_per_minute: int, pitch: int) -> tuple[np.ndarray, list[tuple[int, str]]]:
        with self._lock:
            self._samples, self._events = [], []
            tag, plus, variant = voice.partition("+")
            identifier = self._identifiers.get(tag.lower())
            if identifier is None or self._library.espeak_SetVoiceByName(f"{identifier}{plus}{variant}".encode()) != 0:
                raise UserError(f"voice is {voice!r}; it must be one that `espeak-ng --voices` lists, such as en-gb")
            self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
            self._library.espeak_SetParameter(_PITCH, pitch, 0)
            data = text.encode()
            self._library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, _CHARACTERS_UTF8, None, None)
            self._library.espeak_Synchronize()
            samples = np.concatenate(self._samples) if self._samples else np.zeros(0, np.int16)
            return samples, self._events


@lru_cache(maxsize=1)
def _espeak() -> _Espeak:
    return _Espeak()


def speak(text: str, voice: str = "en-gb", words_per_minute: int = 160, pitch: int = 50) -> tuple[np.ndarray, list[Phoneme]]:
    """What espeak-ng says, and when: float32 [N] mono at 16 kHz in -1..1, and its phonemes in IPA covering 0 to the end.

    ``voice`` is a language tag of ``espeak-ng --voices``, with a variant if wanted: en-gb, en-us+f3.

    Raises:
        UserError: empty text, an unknown voice, a rate outside 80..450, a pitch outside 0..99, or espeak-ng is not installed.
    """
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"text is {text!r}; it must hold at least one word")
    if not 80 <= words_per_minute <= 450:
        raise UserError(f"words_per_minute is {words_per_minute!r}; it must be from 80 to 450")
    if not 0 <= pitch <= 99:
        raise UserError(f"pitch is {pitch!r}; it must be from 0 to 99")
    espeak = _espeak()
    samples, events = espeak.say(text, voice, int(words_per_minute), int(pitch))
    if samples.size == 0:
        raise UserError(f"text is {text!r}; espeak-ng finds nothing to say in it")
    waveform = soxr.resample(np.float32(samples) / 32768, espeak.rate_hz, SAMPLE_RATE_HZ)
    end_s = waveform.size / SAMPLE_RATE_HZ
    starts = [(0.0, PAUSE)] + [(sample / espeak.rate_hz, name or PAUSE) for sample, name in events]
    phonemes = [
        Phoneme(name, start, min(stop, end_s))
        for (start, name), (stop, _) in zip(starts, [*starts[1:], (end_s, PAUSE)], strict=True)
        if min(stop, end_s) > start
    ]
    return np.float32(waveform), phonemes
