"""The frame: one picture of a video and its time, converted between YUV and RGB only where somebody looks or paints.

Most of a frame never changes, so turning all of it into RGB and back is work for nothing. The fast path

    frame.luma                        # grey picture for a face detector: a view, no work
    frame.region(x, y, w, h)          # RGB of one rectangle, the face and a margin
    frame.replace(x, y, patch)        # a new frame with that rectangle painted over
    writer.write(new_frame)           # encodes the planes as they stand

converts the face and nothing else, and leaves every pixel outside the rectangle exactly as it was decoded.
`frame.image` is the whole picture in RGB, for those who want it.
"""

import av
import cv2
import numpy as np

from flashlips_edge.media import colour

STEP_PX = 64  # rectangles are converted in sizes of this step: a new size costs swscale more than the conversion


class Frame:
    """One picture: Frame(image, pts_ns) from RGB; VideoFile and Camera make theirs from what they decode.

    image             uint8 RGB [H, W, 3], converted on first use and kept
    luma              uint8 [H, W], grey: of a decoded frame its luma plane (16..235 unless the video is full-range)
    width, height     pixels, rotation applied
    pts_ns            presentation time, nanoseconds: from the start of the video, or on the session's clock

    A frame never changes: image and luma are read-only, `replace` and `at` give new frames. It may pass between threads.
    """

    def __init__(self, image: np.ndarray, pts_ns: int = 0):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image is {image.dtype} {list(image.shape)}, a frame is uint8 RGB [H, W, 3]")
        self.height, self.width = image.shape[:2]
        self.pts_ns = pts_ns
        self._image: np.ndarray | None = _read_only(image)
        self._yuv: av.VideoFrame | None = None
        self._colour = colour.Colour.default(self.width, self.height)

    @classmethod
    def of_yuv(cls, yuv: av.VideoFrame, pts_ns: int) -> "Frame":
        """The frame of a yuv420p picture; its planes are used as they are and must not change afterwards."""
        frame = cls.__new__(cls)
        frame.width, frame.height, frame.pts_ns = yuv.width, yuv.height, pts_ns
        frame._image, frame._yuv, frame._colour = None, yuv, colour.Colour.of(yuv)
        return frame

    @property
    def image(self) -> np.ndarray:
        if self._image is None:
            self._image = self.region(0, 0, self.width, self.height)
        return self._image

    @property
    def luma(self) -> np.ndarray:
        if self._yuv is None:
            return _read_only(cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY))
        return _read_only(colour.planes(self._yuv)[0])

    @property
    def yuv(self) -> av.VideoFrame:
        """The picture as a yuv420p frame with colour tags, for encoders. Not to be written to."""
        if self._yuv is None:
            self._yuv = colour.rgb_to_yuv(self.image, self._colour)
        return self._yuv

    @property
    def tags(self) -> colour.Colour:
        """The colour tags of `yuv`."""
        return self._colour

    def at(self, pts_ns: int) -> "Frame":
        """The same picture at another time; nothing is copied."""
        frame = Frame.__new__(Frame)
        frame.__dict__.update(self.__dict__, pts_ns=pts_ns)
        return frame

    def region(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """uint8 RGB [height, width, 3] of a rectangle, read-only. It must lie inside the frame (ValueError)."""
        self._check(x, y, width, height)
        if self._image is not None:
            return self._image[y : y + height, x : x + width]
        (left, right), (top, bottom) = _grow(x, width, self.width), _grow(y, height, self.height)
        part = colour.empty_yuv(right - left, bottom - top, self._colour)
        for to, whole, step in zip(colour.planes(part), colour.planes(self._yuv), (1, 2, 2), strict=True):
            to[:] = whole[top // step :, left // step :][: to.shape[0], : to.shape[1]]
        rgb = colour.yuv_to_rgb(part, self._colour)
        return _read_only(rgb[y - top : y - top + height, x - left : x - left + width])

    def replace(self, x: int, y: int, patch: np.ndarray) -> "Frame":
        """A new frame with `patch`, uint8 RGB [h, w, 3], painted at column x and row y.

        It must lie inside the frame (ValueError). Chroma is shared by 2 x 2 pixels: a patch that starts or ends on an
        odd column or row touches the chroma of its neighbour there.
        """
        height, width = patch.shape[:2]
        self._check(x, y, width, height)
        if self._yuv is None:
            image = self.image.copy()
            image[y : y + height, x : x + width] = patch
            return Frame(image, self.pts_ns)
        (left, right), (top, bottom) = _even(x, width, self.width), _even(y, height, self.height)
        if (right - left, bottom - top) != (width, height):
            whole = self.region(left, top, right - left, bottom - top).copy()
            whole[y - top : y - top + height, x - left : x - left + width] = patch
            patch = whole
        rows, columns = -patch.shape[0] % STEP_PX, -patch.shape[1] % STEP_PX
        part = colour.rgb_to_yuv(cv2.copyMakeBorder(patch, 0, rows, 0, columns, cv2.BORDER_REPLICATE), self._colour)
        copy = colour.empty_yuv(self.width, self.height, self._colour)
        for to, old, new, step in zip(colour.planes(copy), colour.planes(self._yuv), colour.planes(part), (1, 2, 2), strict=True):
            to[:] = old
            inside = to[top // step : -(-bottom // step), left // step : -(-right // step)]
            inside[:] = new[: inside.shape[0], : inside.shape[1]]
        return Frame.of_yuv(copy, self.pts_ns)

    def _check(self, x: int, y: int, width: int, height: int) -> None:
        if x < 0 or y < 0 or min(width, height) < 1 or x + width > self.width or y + height > self.height:
            raise ValueError(f"rectangle {width} x {height} at {x}, {y} is not inside {self.width} x {self.height} pixels")


def _even(start: int, length: int, limit: int) -> tuple[int, int]:
    """The span grown to whole chroma samples: its start and end."""
    end = start + length
    return start & ~1, min(end + end % 2, limit)


def _grow(start: int, length: int, limit: int) -> tuple[int, int]:
    """The even span grown to a multiple of STEP_PX where the frame is that large: its start and end."""
    start, end = _even(start, length, limit)
    length = min(end - start + (start - end) % STEP_PX, limit)
    start = min(start, limit - length) & ~1
    return start, max(end, start + length)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
