"""What the numbers of a YUV picture mean, and the conversion between them and RGB, done in one place.

Reader and writer both go through here, so a picture that is read, left alone and written keeps its colours. The conversion is
swscale's accurate one: RGB and back again changes luma by less than a thousandth of a step on average.
"""

import threading
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

UNSPECIFIED = 2  # of matrix, primaries and transfer alike (ITU-T H.273)
BT709, SMPTE170M = 1, 6  # H.273 names; 6 is BT.601
LIMITED, FULL = 1, 2
SWSCALE_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # H.273 matrix -> swscale's number for it
ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP

_local = threading.local()


class Colour(NamedTuple):
    """Colour tags of a YUV picture: H.273 code points, and the range (1 limited, 2 full)."""

    matrix: int
    primaries: int
    transfer: int
    range: int

    @staticmethod
    def default(width: int, height: int) -> "Colour":
        """What players take an untagged picture for: BT.709 above standard definition, else BT.601."""
        code = BT709 if width >= 1280 or height > 576 else SMPTE170M
        return Colour(code, code, code, LIMITED)

    @staticmethod
    def of(frame: av.VideoFrame) -> "Colour":
        """The tags of a decoded YUV frame; the default stands in for what the file does not say."""
        guess = Colour.default(frame.width, frame.height)
        full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
        return Colour(
            frame.colorspace if frame.colorspace in SWSCALE_MATRICES else guess.matrix,
            guess.primaries if frame.color_primaries in (0, UNSPECIFIED) else frame.color_primaries,
            guess.transfer if frame.color_trc in (0, UNSPECIFIED) else frame.color_trc,
            FULL if full else LIMITED,
        )

    def tag(self, target: av.VideoFrame | av.VideoCodecContext) -> None:
        """Write the tags on a frame or an encoder."""
        target.colorspace, target.color_primaries, target.color_trc, target.color_range = self


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Writable views of a yuv420p frame's planes: Y [H, W], U and V [ceil(H/2), ceil(W/2)]."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width] for plane in frame.planes
    ]


def empty_yuv(width: int, height: int, colour: Colour) -> av.VideoFrame:
    """A yuv420p frame with these tags, its planes not yet filled."""
    frame = av.VideoFrame(width, height, "yuv420p")
    colour.tag(frame)
    return frame


def to_yuv420p(frame: av.VideoFrame) -> av.VideoFrame:
    """A decoded frame of any pixel format as 8-bit yuv420p with all its tags set; yuv420p itself is not copied."""
    name = frame.format.name
    if name in ("yuv420p", "yuvj420p"):
        return frame
    if frame.format.is_rgb or name.startswith(("gray", "pal8", "mono")):
        return rgb_to_yuv(frame.to_ndarray(format="rgb24"), Colour.default(frame.width, frame.height))
    colour = Colour.of(frame)
    matrix = SWSCALE_MATRICES[colour.matrix]
    yuv = _reformatter("any").reformat(
        frame, format="yuv420p", src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=colour.range, dst_color_range=colour.range, interpolation=ACCURATE, threads=0,
    )  # fmt: skip
    colour.tag(yuv)
    return yuv


def yuv_to_rgb(frame: av.VideoFrame, colour: Colour) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a yuv420p frame."""
    rgb = _reformatter("rgb").reformat(
        frame, format="rgb24", src_colorspace=SWSCALE_MATRICES[colour.matrix], dst_colorspace=BT709,
        src_color_range=colour.range, dst_color_range=FULL, interpolation=ACCURATE, threads=1,
    )  # fmt: skip
    plane = rgb.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : 3 * frame.width]
    return np.ascontiguousarray(rows).reshape(frame.height, frame.width, 3)


def rgb_to_yuv(image: np.ndarray, colour: Colour) -> av.VideoFrame:
    """The yuv420p frame of uint8 RGB [H, W, 3]."""
    yuv = _reformatter("yuv").reformat(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"), format="yuv420p", src_colorspace=BT709,
        dst_colorspace=SWSCALE_MATRICES[colour.matrix], src_color_range=FULL, dst_color_range=colour.range,
        interpolation=ACCURATE, threads=1,
    )  # fmt: skip
    colour.tag(yuv)
    return yuv


def _reformatter(name: str) -> VideoReformatter:
    """This thread's swscale context for one kind of conversion: making one anew for each frame costs more than using it."""
    reformatters = _local.__dict__.setdefault("reformatters", {})
    if name not in reformatters:
        reformatters[name] = VideoReformatter()
    return reformatters[name]
