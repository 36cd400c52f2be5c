"""What moves the lips of a live run: recorded sound, sound as it comes, a recorded face, a live face."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr

from flashlips_edge.errors import UserError
from flashlips_edge.media.audio_file import SPEECH_RATE_HZ, Sound, read_sound
from flashlips_edge.media.camera import Camera
from flashlips_edge.media.microphone import Microphone
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.mailbox import ClosedError, Mailbox
from flashlips_edge.pump.stage import LOOK_NS, Stage
from flashlips_edge.talking.talker import Talker

AHEAD_NS = 6 * SECOND_NS  # how long before they are needed lips are made, where the voice is there already
LEAD_NS = 400_000_000  # live sound is heard, and its lips are seen, this much after it came: lips are made 200 ms at a time
PCM_BYTES = 1 << 14  # read from a pipe at a time, at most
HEADERS = (b"RIFF", b"fLaC", b"OggS", b"ID3")
LIVE_SILENCE = Sound(np.zeros((0, 1), np.float32), SPEECH_RATE_HZ)


class Voice(Protocol):
    """`silence` is an empty sound in the format that is heard, or None. Whoever makes a voice closes it."""

    silence: Sound | None

    def advance(self, talker: Talker, writer: VideoWriter | None, pts_ns: int) -> bool:
        """Push what the frame of this pts needs into the talker and the writer; False when there is nothing more.

        The first pts is where the voice begins.
        """

    def close(self) -> None: ...


class RecordedVoice:
    """A sound, over and over if `repeat`."""

    def __init__(self, sound: Sound, repeat: bool = False):
        self._sound, self._speech, self._repeat = sound, sound.speech(), repeat
        self._pushed = False
        self.silence: Sound | None = Sound(sound.samples[:0], sound.sample_rate_hz)

    def advance(self, talker: Talker, writer: VideoWriter | None, pts_ns: int) -> bool:
        while not self._pushed or (self._repeat and talker.lips.end_ns < pts_ns + AHEAD_NS):
            self._pushed = True
            talker.push_audio(self._speech, pts_ns)
            if writer is not None:
                writer.write_audio(self._sound.samples)
            if not self._repeat:
                talker.finish()
        return talker.end_ns is None or pts_ns < talker.end_ns

    def close(self) -> None:
        pass


class LiveVoice:
    """Sound as it comes from a microphone or a pipe. Where none has come in time there is silence, heard and seen."""

    def __init__(self, source: Microphone | PcmStream):
        self.silence: Sound | None = LIVE_SILENCE
        self._source = source
        self._source.__enter__()
        self._start_ns: int | None = None
        self._samples = 0
        self._heard = False

    def advance(self, talker: Talker, writer: VideoWriter | None, pts_ns: int) -> bool:
        if self._start_ns is None:
            self._start_ns = pts_ns
        while talker.end_ns is None and self._end_ns < pts_ns + AHEAD_NS:
            try:
                block = self._source.read(0)
            except TimeoutError:
                break
            except ClosedError:
                if not self._heard:
                    raise UserError("--audio -: standard input held no sound; give raw PCM, s16le, mono") from None
                talker.finish()
                break
            if not self._heard:
                self._silence_until(talker, writer, pts_ns + LEAD_NS)
            self._heard = True
            self._push(talker, writer, block)
        if talker.end_ns is not None:
            return pts_ns < talker.end_ns
        if self._end_ns <= pts_ns:
            self._silence_until(talker, writer, pts_ns + LEAD_NS)
        return True

    def close(self) -> None:
        self._source.__exit__(None, None, None)

    @property
    def _end_ns(self) -> int:
        """The pts up to which there is sound."""
        assert self._start_ns is not None
        return self._start_ns + self._samples * SECOND_NS // SPEECH_RATE_HZ

    def _silence_until(self, talker: Talker, writer: VideoWriter | None, pts_ns: int) -> None:
        missing = (pts_ns - self._end_ns) * SPEECH_RATE_HZ // SECOND_NS
        self._push(talker, writer, np.zeros(max(0, missing), np.float32))

    def _push(self, talker: Talker, writer: VideoWriter | None, block: np.ndarray) -> None:
        assert self._start_ns is not None
        talker.push_audio(block, self._start_ns, live=True)
        if writer is not None:
            writer.write_audio(block)
        self._samples += len(block)


class RecordedFace:
    """The lips, and the sound if it has one, of a face in a video."""

    def __init__(self, path: Path):
        self._video = VideoFile(path, "--driver")
        self._sound = read_sound(path, "--driver") if self._video.has_audio else None
        self.silence: Sound | None = None
        if self._sound is not None:
            self.silence = Sound(self._sound.samples[:0], self._sound.sample_rate_hz)
        self._frames = iter(self._video)
        self._start_ns: int | None = None
        self._last_ns = -1

    def advance(self, talker: Talker, writer: VideoWriter | None, pts_ns: int) -> bool:
        if self._start_ns is None:
            self._start_ns = pts_ns
            if writer is not None and self._sound is not None:
                writer.write_audio(self._sound.samples)
        while talker.end_ns is None and self._last_ns <= pts_ns:
            frame = next(self._frames, None)
            if frame is None:
                talker.finish(self._last_ns + int(SECOND_NS / self._video.frame_rate))
            else:
                self._last_ns = self._start_ns + frame.pts_ns
                talker.push_face(frame.at(self._last_ns))
        return talker.end_ns is None or pts_ns < talker.end_ns

    def close(self) -> None:
        self._video.close()


class LiveFace:
    """The lips of a face before another camera; read by a thread of its own. Nothing is heard."""

    def __init__(self, camera: Camera, talker: Talker):
        self.silence: Sound | None = None
        self._camera = camera
        self._stage = Stage("driver", camera, talker.push_face)
        self._stage.start()

    def advance(self, talker: Talker, writer: VideoWriter | None, pts_ns: int) -> bool:
        return self._camera.lost is None

    def close(self) -> None:
        self._camera.close()
        self._stage.stop()
        self._stage.join()


class PcmStream:
    """Blocks of raw PCM, signed 16 bit little-endian, mono, as they come from a file descriptor; in the `with` block."""

    def __init__(self, descriptor: int, sample_rate_hz: int, clock: Clock):
        self._descriptor = descriptor
        self._resample = soxr.ResampleStream(sample_rate_hz, SPEECH_RATE_HZ, 1, dtype="float32")
        self._blocks: Mailbox[np.ndarray] = Mailbox(clock, bound=2, newest_wins=False)
        self._stop = threading.Event()
        self._stage = Stage("pcm", self._read(), sink=self._blocks)

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
