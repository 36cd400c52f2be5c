"""A picture of another size put into a fixed one, its proportions kept, with black borders."""

import cv2

from flashlips_edge.media import colour
from flashlips_edge.media.frames import Frame

GREY = 128  # chroma of black


def letterbox(frame: Frame, width: int, height: int) -> Frame:
    """The frame scaled into width x height; one that has this size already is given back as it is."""
    if (frame.width, frame.height) == (width, height):
        return frame
    scale = min(width / frame.width, height / frame.height)
    # whole chroma samples, so that luma and chroma stay together
    inner_width = max(2, min(width, 2 * round(frame.width * scale / 2)))
    inner_height = max(2, min(height, 2 * round(frame.height * scale / 2)))
    left, top = (width - inner_width) // 4 * 2, (height - inner_height) // 4 * 2
    boxed = colour.empty_yuv(width, height, frame.tags)
    black = 0 if frame.tags.range == colour.FULL else 16
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    for to, plane, step, level in zip(colour.planes(boxed), colour.planes(frame.yuv), (1, 2, 2), (black, GREY, GREY), strict=True):
        to[:] = level
        size = -(-inner_width // step), -(-inner_height // step)
        to[top // step :, left // step :][: size[1], : size[0]] = cv2.resize(plane, size, interpolation=method)
    return Frame.of_yuv(boxed, frame.pts_ns)
