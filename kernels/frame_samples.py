"""Frames that the tests of warp_crop and paste_back share."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

import flashlips_edge
from flashlips_edge.media.colour import BT709, FULL, LIMITED, SMPTE170M, Colour, planes

LIMITED_709 = Colour(BT709, BT709, BT709, LIMITED)
FULL_601 = Colour(SMPTE170M, SMPTE170M, SMPTE170M, FULL)


def real_frame() -> np.ndarray:
    """uint8 RGB [192, 256, 3]: the middle of the first frame of the avatar that comes with the package."""
    with av.open(str(Path(flashlips_edge.__file__).parent / "assets" / "avatar.mp4")) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24")
    top, left = (image.shape[0] - 192) // 2, (image.shape[1] - 256) // 2
    return np.ascontiguousarray(image[top : top + 192, left : left + 256])


def nv12_of(yuv: av.VideoFrame) -> Tensor:
    """uint8 [3 * H / 2, W] of a yuv420p frame."""
    luma, blue, red = planes(yuv)
    chroma = np.stack([blue, red], 2).reshape(len(blue), -1)
    return torch.from_numpy(np.concatenate([luma, chroma]))
