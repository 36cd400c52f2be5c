"""Sound from files and from raw PCM streams."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soxr

from flashlips_edge.errors import UserError
from flashlips_edge.media.downmix import downmix
from flashlips_edge.media.opening import SOUND, decode, open_media

SPEECH_RATE_HZ = 16_000
RATES_HZ = (4_000, 384_000)  # lowest and highest sample rate taken
GAP_S = Fraction(1, 20)  # time stamps may be this much off before silence is put in or sound taken out
PCM_FORMATS = {
    "s16le": np.dtype("<i2"),
    "s16be": np.dtype(">i2"),
    "s32le": np.dtype("<i4"),
    "u8": np.dtype("u1"),
    "f32le": np.dtype("<f4"),
}


@dataclass(frozen=True)
class Sound:
    """samples float32 [N, channels] in -1..1, at sample_rate_hz: as recorded, for writing beside the pictures."""

    samples: np.ndarray
    sample_rate_hz: int

    @property
    def duration_ns(self) -> int:
        return len(self.samples) * 1_000_000_000 // self.sample_rate_hz

    def mono(self) -> np.ndarray:
        """float32 [N], in one channel: what is heard live."""
        return downmix(self.samples)

    def speech(self) -> np.ndarray:
        """float32 [M] at 16 kHz, in one channel: what the networks hear."""
        mono = self.mono()
        if self.sample_rate_hz == SPEECH_RATE_HZ:
            return mono
        return soxr.resample(mono, self.sample_rate_hz, SPEECH_RATE_HZ)


def read_sound(path: str | Path, argument: str = "audio", alone: bool = False) -> Sound:
    """The sound of a file: wav, flac, mp3, ogg, m4a, or of a video.

    Of a video, sample 0 belongs to its first picture (pts_ns 0 of VideoFile): what was heard before is left out, a later
    start is silence; `alone`, without its pictures, all of its sound from the first sample on. Gaps in the time stamps become
    silence too. Damaged packets are passed over.

    Raises UserError in one sentence naming `argument` and the path: no such file, no sound in it, zero length, samples
    that are not numbers, a sample rate outside 4 to 384 kHz.
    """
    with open_media(path, argument, SOUND) as container:
        stream = next((s for s in container.streams.audio if s.codec_context is not None), None)
        if stream is None:
            raise UserError(f"{argument} {path}: there is no sound in it; give {SOUND}")
        rate_hz = stream.codec_context.sample_rate
        _check_rate(rate_hz, f"{argument} {path}")
        cover = av.stream.Disposition.attached_pic
        pictures = (s for s in container.streams.video if s.start_time is not None and not s.disposition & cover)
        picture = next(pictures, None)
        start = None if alone or picture is None else picture.start_time * picture.time_base
        samples = _samples(container, stream, rate_hz, start, f"{argument} {path}")
    if not samples.size:
        raise UserError(f"{argument} {path}: its sound is of zero length; give {SOUND}")
    _check_numbers(samples, f"{argument} {path}")
    return Sound(samples, rate_hz)


def read_audio(path: str | Path, argument: str = "audio") -> np.ndarray:
    """float32 [N], mono at 16 kHz, of a file: `read_sound(path).speech()`."""
    return read_sound(path, argument).speech()


def read_pcm(stream: BinaryIO, sample_rate_hz: int = SPEECH_RATE_HZ, channels: int = 1, sample_format: str = "s16le") -> Sound:
    """The sound of a raw stream, such as `sys.stdin.buffer`, read to its end; half a sample at the end is dropped.

    Raises UserError in one sentence: an option outside its range, an empty stream, a file with a header instead of PCM.
    """
    _check_rate(sample_rate_hz, f"--sample-rate {sample_rate_hz}")
    if channels not in (1, 2):
        raise UserError(f"--channels {channels}: give 1 or 2")
    if sample_format not in PCM_FORMATS:
        raise UserError(f"--sample-format {sample_format}: give one of {', '.join(PCM_FORMATS)}")
    raw = stream.read()
    if raw[:4] in (b"RIFF", b"fLaC", b"OggS") or raw[:3] == b"ID3":
        raise UserError("--audio -: standard input holds a sound file, not raw PCM; give the file's name instead of -")
    kind = PCM_FORMATS[sample_format]
    n = len(raw) // (kind.itemsize * channels)
    if n == 0:
        raise UserError(f"--audio -: standard input held no sound; give raw PCM, {sample_format} at {sample_rate_hz} Hz")
    integers = np.frombuffer(raw, kind, n * channels).reshape(n, channels)
    samples = integers.astype(np.float32)
    if kind.kind != "f":
        half = float(2 ** (8 * kind.itemsize - 1))
        samples = (samples - (half if kind.kind == "u" else 0)) / half
    _check_numbers(samples, "--audio -")
    return Sound(samples.astype(np.float32), sample_rate_hz)


def _samples(container: av.container.InputContainer, stream: av.AudioStream, rate_hz: int, start: Fraction | None, what: str) -> np.ndarray:
    """float32 [N, C], each decoded frame put where its time stamp says; C is 1 or 2, to which FFmpeg mixes more, as a player does."""
    layout = stream.codec_context.layout
    planar = av.AudioResampler("fltp", "stereo" if layout.nb_channels > 2 else layout, rate_hz)
    blocks: list[np.ndarray] = []
    n = 0
    for decoded in decode(container, stream, what):
        time = None if decoded.pts is None else decoded.pts * decoded.time_base
        for frame in planar.resample(decoded):
            block = frame.to_ndarray().T
            if time is not None:
                start = time if start is None else start
                ahead = round((time - start) * rate_hz) - n
                if ahead > (GAP_S * rate_hz if n else 0):
                    blocks.append(np.zeros((ahead, block.shape[1]), np.float32))
                    n += ahead
                elif ahead < (-GAP_S * rate_hz if n else 0):
                    block = block[-ahead:]
            blocks.append(block)
            n += len(block)
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)


def _check_rate(rate_hz: int, what: str) -> None:
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise UserError(f"{what}: a sample rate of {rate_hz} Hz; it must be from {RATES_HZ[0]} to {RATES_HZ[1]} Hz")


def _check_numbers(samples: np.ndarray, what: str) -> None:
    if not np.isfinite(samples).all():
        raise UserError(f"{what}: it holds samples that are not numbers; give sound whose samples are all finite")
