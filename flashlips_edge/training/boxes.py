"""Where the lower face, the lips and the mouth lie in a crop, in crop units, so that one recipe serves every crop size."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Box(NamedTuple):
    """Part of a crop, in units of its side."""

    top: float
    bottom: float
    left: float
    right: float

    def pixels(self, size: int) -> tuple[int, int, int, int]:
        """top, bottom, left, right in a crop of ``size`` px."""
        top, bottom, left, right = (round(edge * size) for edge in self)
        return top, bottom, left, right

    def cut(self, picture: Tensor) -> Tensor:
        """The box out of pictures [..., H, S] that show the crop's lower H rows, S px wide."""
        height, size = picture.shape[-2:]
        top, bottom, left, right = self.pixels(size)
        above = size - height
        return picture[..., top - above : bottom - above, left:right]


MASK = Box(84 / 160, 1.0, 30 / 160, 130 / 160)  # the lower face, hidden in masked reconstruction
LIPS = Box(92 / 160, 152 / 160, 45 / 160, 115 / 160)  # lips and chin
MOUTH = Box(92 / 160, 140 / 160, 45 / 160, 115 / 160)  # where the mouth's PSNR is measured


def lower_row(preset: dict[str, Any]) -> int:
    """First pixel row that the pixel losses see: one latent row above those that the editor changes."""
    return 8 * max(0, preset["editor"]["rows"][0] - 1)
