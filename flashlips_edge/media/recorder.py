"""A recording made while live: a video file that plays up to the last second, whatever ends the program."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.media.encoding import MARK, PictureTrack, SoundTrack, check_suffix, failing
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.growing_file import GrowingFile

SAMPLE_RATE_HZ = 48_000
SECOND_NS = 1_000_000_000
TICKS_HZ = 90_000  # of the picture's time stamps
FRAGMENT_US = 400_000
SYNC_NS = SECOND_NS  # so much may be lost if the power fails
WAITING_NS = 2 * SECOND_NS  # of sound that waits for the first picture
CHUNK = SAMPLE_RATE_HZ  # silence is put in at most this much at a time
TOLERANCE = SAMPLE_RATE_HZ // 100  # samples by which the sound's times may be off before it is cut or filled up
# zerolatency: the encoder keeps no frame to itself; g: two seconds between pictures that a player can jump to
ENCODER = {"preset": "ultrafast", "crf": "20", "tune": "zerolatency", "g": "50"}
# fragments stand for themselves; the head comes with the first, when it is known where sound and pictures start
MUXER = {
    "movflags": "+delay_moov+default_base_moof+frag_keyframe",
    "frag_duration": str(FRAGMENT_US),
    "max_interleave_delta": str(FRAGMENT_US),
    "flush_packets": "1",
}


class Recorder:
    """A sink that writes what is seen and heard to `path`, a fragmented MP4: H.264 and AAC.

        session.add_sink("file", Recorder("lobby.mp4", session.frame_rate))

    The file is there from the first frame on and grows by fragments of at most half a second, which are synced to the disk every second:
    after a SIGKILL it plays up to then, after `close` to its end. Frames have the size of the first. They may come at any times
    that rise, others are passed over; sound is placed by its pts: silence fills what is missing. Both begin with the first frame.
    Memory does not grow but for 80 bytes of index per fragment. Not for use by two threads at once.

    path          must not be there yet: a recording is never written over
    frame_rate    nominal: how long the last frame lasts

    Raises UserError in one sentence naming `argument` and the path: a suffix that is not mp4, m4v or mov, a file that is there already,
    a place that cannot be written, a disk that is full (the file up to there plays), no frame at all (nothing is left).
    """

    def __init__(self, path: str | Path, frame_rate: Fraction = Fraction(25), argument: str = "recording"):
        self.path, self._argument, self._frame_rate = Path(path), argument, Fraction(frame_rate)
        check_suffix(self.path, argument)
        self._file = self._create()
        self._container: av.container.OutputContainer | None = None
        self._waiting: deque[tuple[np.ndarray, int]] = deque()  # sound from before the first frame, with its pts_ns
        self._start_ns = self._synced_ns = 0
        self._last_tick = -1
        self._samples = 0  # of sound written
        self._closed = False

    def write(self, frame: Frame) -> None:
        """Add a picture, shown from its pts_ns on until the next."""
        if self._closed:
            return
        if self._container is not None and (frame.width, frame.height) != self._size:
            raise ValueError(f"frame is {frame.width} x {frame.height}, the recording {self._size[0]} x {self._size[1]}")
        with self._writing():
            container = self._container or self._open(frame)
            tick = (frame.pts_ns - self._start_ns) * TICKS_HZ // SECOND_NS
            if tick <= self._last_tick:
                return
            self._last_tick = tick
            container.mux(self._pictures.encode(frame, tick))
            if frame.pts_ns - self._synced_ns >= SYNC_NS:
                self._synced_ns = frame.pts_ns
                self._file.sync()

    def write_audio(self, samples: np.ndarray, pts_ns: int) -> None:
        """Add float32 [n], mono at 48 kHz, heard from pts_ns on."""
        if self._closed:
            return
        if self._container is None:
            self._waiting.append((samples, pts_ns))
            while pts_ns - self._waiting[0][1] > WAITING_NS:
                self._waiting.popleft()
            return
        with self._writing():
            self._place(self._container, samples, pts_ns)

    def close(self) -> None:
        """Finish the file."""
        if self._closed:
            return
        if self._container is None:
            self._closed = True
            self._file.close()
            self.path.unlink(missing_ok=True)
            raise UserError(f"{self._argument} {self.path}: no frame came, so nothing was written")
        with self._writing():
            self._container.mux(self._pictures.finish() + self._sound.finish())
            self._container.close()
            self._file.sync()
        self._closed = True
        self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self) -> GrowingFile:
        path = self.path
        with failing(path, self._argument):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return GrowingFile(path)
            except FileExistsError:
                problem = "it is there already; give a new name, a recording is never written over"
                raise UserError(f"{self._argument} {path}: {problem}") from None

    def _open(self, first: Frame) -> av.container.OutputContainer:
        container = av.open(self._file, "w", format="mp4", options=MUXER)
        container.metadata["comment"] = MARK
        self._size = first.width, first.height
        self._start_ns = self._synced_ns = first.pts_ns
        self._pictures = PictureTrack(container, first, self._frame_rate, TICKS_HZ, ENCODER)
        self._sound = SoundTrack(np.zeros(0, np.float32), SAMPLE_RATE_HZ)
        self._sound.open(container)
        self._container = container
        while self._waiting:
            self._place(container, *self._waiting.popleft())
        return container

    def _place(self, container: av.container.OutputContainer, samples: np.ndarray, pts_ns: int) -> None:
        """Put sound where its pts says; none is before the first picture."""
        ahead = round((pts_ns - self._start_ns) * SAMPLE_RATE_HZ / SECOND_NS) - self._samples
        if ahead < (-TOLERANCE if self._samples else 0):
            samples = samples[-ahead:]
        elif ahead > (TOLERANCE if self._samples else 0):
            for start in range(0, ahead, CHUNK):
                self._add(container, np.zeros(min(CHUNK, ahead - start), np.float32))
        self._add(container, samples)

    def _add(self, container: av.container.OutputContainer, samples: np.ndarray) -> None:
        self._samples += len(samples)
        self._sound.add(samples)
        container.mux(self._sound.encode())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What is written here is in the file afterwards; a failure ends the recording and leaves what was there."""
        try:
            with failing(self.path, self._argument):
                yield
                self._file.commit()
        except BaseException:
            self._closed = True
            if self._container is not None:
                self._container.close()
            self._file.close()
            raise
