"""A frame with its face: cutting the crop out of it, and painting the edited crop back into it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from flashlips_edge.face.crop import Crop, cut, half_extent, paste_patch
from flashlips_edge.face.detect import Box
from flashlips_edge.media.frames import Frame
from flashlips_edge.talking.chain import DevicePicture, Edited

MARGIN_PX = 8  # around the crop's square, for the filters that cut it


@dataclass(frozen=True)
class Target:
    """A frame and its crop; crop is None where there is no face. Only the face's surroundings are turned into RGB."""

    frame: Frame
    crop: Crop | None
    surroundings: np.ndarray | None = None  # uint8 RGB [h, w, 3]; the crop's transform is from here
    left: int = 0  # of the surroundings in the frame
    top: int = 0
    index: int | None = None  # the picture's number in a looped avatar

    @staticmethod
    def of(frame: Frame, box: Box | None, crop_size: int, index: int | None = None) -> Target:
        """The frame with the face in `box`."""
        if box is None:
            return Target(frame, None)
        x, y = box.centre
        half = half_extent(box) + MARGIN_PX
        left, top = max(0, floor(x - half)), max(0, floor(y - half))
        right, bottom = min(frame.width, ceil(x + half)), min(frame.height, ceil(y + half))
        if right - left < 2 or bottom - top < 2:
            return Target(frame, None)
        surroundings = frame.region(left, top, right - left, bottom - top)
        crop = cut(surroundings, box._replace(x=box.x - left, y=box.y - top), crop_size)
        return Target(frame, crop, surroundings, left, top, index)

    def paint(self, edited: Edited) -> Frame:
        """The frame with the mouth of the edited crop, [S, S, 3] in 0 to 255; nothing else changes."""
        if self.crop is None or self.surroundings is None:
            return self.frame
        if isinstance(edited, DevicePicture):
            x, y, patch = edited.paste_patch(self.surroundings, self.crop)
        else:
            x, y, patch = paste_patch(self.surroundings, self.crop, edited)
        if patch.size == 0:
            return self.frame
        return self.frame.replace(self.left + x, self.top + y, patch)
