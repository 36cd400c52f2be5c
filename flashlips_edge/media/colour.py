"""What the numbers of a YUV picture mean, and the conversion between them and RGB, done in one place.

Reader and writer both go through here, so a picture that is read, left alone and written keeps its colours. The
conversion is swscale's accurate one: to RGB and back changes luma by less than a thousandth of a step on average.
"""

import threading
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

UNSPECIFIED = 2  # of matrix, primaries and transfer alike (ITU-T H.273)
BT709, SMPTE170M = 1, 6  # H.273 names; 6 is BT.601
LIMITED, FULL = 1, 2
SWSCALE_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # H.273 matrix -> swscale's number for it
# swscale.h: SWS_BILINEAR, SWS_FULL_CHR_H_INT, SWS_FULL_CHR_H_INP, SWS_ACCURATE_RND; not every PyAV has names for them
ACCURATE = 0x2 | 0x2000 | 0x4000 | 0x40000
CONTEXTS = 32  # kept per thread

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
    return [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width] for plane in frame.planes]


def empty_yuv(width: int, height: int, colour: Colour) -> av.VideoFrame:
    """A yuv420p frame with these tags, its planes not yet filled."""
    frame = av.VideoFrame(width, height, "yuv420p")
    colour.tag(frame)
    return frame


def copy(yuv: av.VideoFrame) -> av.VideoFrame:
    """A yuv420p frame with the same picture and tags in memory of its own."""
    twin = empty_yuv(yuv.width, yuv.height, Colour.of(yuv))
    for to, plane in zip(planes(twin), planes(yuv), strict=True):
        to[:] = plane
    return twin


def to_yuv420p(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """A decoded frame of any pixel format and size as 8-bit yuv420p; one that is so already is not copied."""
    name, same_size = frame.format.name, (frame.width, frame.height) == (width, height)
    if name == "yuv420p" and same_size:
        return frame
    colour = Colour.of(frame)
    if name == "yuvj420p" and same_size:  # the same planes under an older name
        return copy(frame)
    if frame.format.is_rgb or name.startswith(("gray", "pal8", "mono")):
        rgb = frame.to_ndarray(width=width, height=height, format="rgb24")
        return rgb_to_yuv(rgb, Colour.default(width, height))
    return to_format(frame, "yuv420p", colour, width, height)


def to_format(frame: av.VideoFrame, name: str, colour: Colour, width: int, height: int) -> av.VideoFrame:
    """A YUV frame with other subsampling, depth or size and the same colours."""
    yuv = _convert(frame, name, (SWSCALE_MATRICES[colour.matrix], colour.range) * 2, width, height)
    colour.tag(yuv)
    return yuv


def yuv_to_rgb(frame: av.VideoFrame, colour: Colour) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a yuv420p frame."""
    rgb = _convert(frame, "rgb24", (SWSCALE_MATRICES[colour.matrix], colour.range, BT709, FULL), frame.width, frame.height)
    plane = rgb.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : 3 * frame.width]
    return np.ascontiguousarray(rows).reshape(frame.height, frame.width, 3)


def rgb_to_yuv(image: np.ndarray, colour: Colour) -> av.VideoFrame:
    """The yuv420p frame of uint8 RGB [H, W, 3]."""
    return _packed_to_yuv(image, "rgb24", colour)


def bgr_to_yuv(image: np.ndarray, colour: Colour) -> av.VideoFrame:
    """The yuv420p frame of uint8 BGR [H, W, 3], OpenCV's order."""
    return _packed_to_yuv(image, "bgr24", colour)


def _packed_to_yuv(image: np.ndarray, order: str, colour: Colour) -> av.VideoFrame:
    packed = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=order)
    meaning = BT709, FULL, SWSCALE_MATRICES[colour.matrix], colour.range
    yuv = _convert(packed, "yuv420p", meaning, packed.width, packed.height)
    colour.tag(yuv)
    return yuv


def _convert(frame: av.VideoFrame, name: str, meaning: tuple[int, int, int, int], width: int, height: int) -> av.VideoFrame:
    """swscale from pixels that mean (matrix, range) to others; it ignores the matrix on the RGB side."""
    from_matrix, from_range, to_matrix, to_range = meaning
    return _reformatter(frame.format.name, frame.width, frame.height, name).reformat(
        frame,
        width=width,
        height=height,
        format=name,
        src_colorspace=from_matrix,
        dst_colorspace=to_matrix,
        src_color_range=from_range,
        dst_color_range=to_range,
        interpolation=ACCURATE,
        threads=1,  # else each context kept has as many threads as the machine has cores
    )


def _reformatter(*conversion: str | int) -> VideoReformatter:
    """This thread's swscale context for one conversion; making one for each frame costs more than using it."""
    reformatters = _local.__dict__.setdefault("reformatters", {})
    if conversion not in reformatters:
        if len(reformatters) == CONTEXTS:
            reformatters.pop(next(iter(reformatters)))
        reformatters[conversion] = VideoReformatter()
    return reformatters[conversion]
