"""Small media files for tests, made on the spot: pictures whose corners tell which way up they are, and clicks of sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CORNERS = {"top left": (200, 40, 40), "top right": (40, 180, 60), "bottom left": (40, 60, 200), "bottom right": (220, 220, 60)}


def corners(width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 RGB [H, W, 3]: a quarter each of red, green, blue and yellow."""
    image = np.zeros((height, width, 3), np.uint8)
    for name, colour in CORNERS.items():
        rows = slice(0, height // 2) if "top" in name else slice(height // 2, height)
        columns = slice(0, width // 2) if "left" in name else slice(width // 2, width)
        image[rows, columns] = colour
    return image


def read_corners(image: np.ndarray) -> list[str]:
    """The names of the colours found top left, top right, bottom left, bottom right."""
    height, width = image.shape[:2]
    found = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            patch = image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(0)
            found.append(min(CORNERS, key=lambda name: np.abs(patch - CORNERS[name]).sum()))
    return found


def clicks(seconds: float, sample_rate_hz: int, every_s: float = 0.5) -> np.ndarray:
    """float32 [N], silent but for 5 ms of tone at 0, every_s, 2 every_s, ..."""
    n = int(seconds * sample_rate_hz)
    time = np.arange(n) / sample_rate_hz
    return (0.8 * (time % every_s < 0.005) * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)


def click_times(samples: np.ndarray, sample_rate_hz: int) -> list[float]:
    """Seconds at which a click starts."""
    loud = np.flatnonzero(np.abs(samples) > 0.2) / sample_rate_hz
    return [float(t) for i, t in enumerate(loud) if i == 0 or t - loud[i - 1] > 0.05]


def write_clip(
    path: Path,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 48),
    frame_rate: Fraction = Fraction(25),
    n: int = 10,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    pixels: str = "yuv420p",
    sound: np.ndarray | None = None,
    sound_rate_hz: int = 16000,
    sound_codec: str = "aac",
    options: dict[str, str] | None = None,
    images: Sequence[np.ndarray] | None = None,
    muxing: dict[str, str] | None = None,
) -> Path:
    """Write the corners picture n times, or `images`, at `pts` in `time_base` (by default one after another)."""
    images = images or [corners(*size)] * n
    with av.open(str(path), "w", options=muxing or {}) as container:
        video = container.add_stream(codec, rate=frame_rate, options=options or {})
        video.width, video.height, video.pix_fmt = *size, pixels
        base = time_base or 1 / Fraction(frame_rate)
        video.codec_context.time_base = base
        audio = None
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=sound_rate_hz)
            audio.layout = "mono"
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = (pts[i] if pts else i), base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            block = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
            block.sample_rate, block.pts = sound_rate_hz, 0
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def turn_mp4(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Set a b c d of the picture's display matrix in an mp4: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    a, b, c, d = (value << 16 for value in matrix)
    values = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    data[header + 40 : header + 76] = values  # version 0 of the box
    path.write_bytes(data)
