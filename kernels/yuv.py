"""YUV and RGB as 3x4 matrices (ITU-T H.273, section 8.3): what the kernels that read and write NV12 frames multiply by.

Chroma samples sit in the middle of their four pixels, as where the run path converts (flashlips_edge.media.colour).
"""

from __future__ import annotations

import torch
from torch import Tensor

from flashlips_edge.media.colour import LIMITED, Colour

BT601, BT2020 = (0.299, 0.114), (0.2627, 0.0593)
KR_KB = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: BT601, 6: BT601, 7: (0.212, 0.087), 9: BT2020, 10: BT2020}


def yuv_of_rgb(colour: Colour) -> Tensor:
    """float64 [3, 4]: Y, U, V in 0..255 of (R, G, B, 1) in 0..255. Raises ValueError naming a matrix that is not supported."""
    if colour.matrix not in KR_KB:
        raise ValueError(f"colour.matrix is {colour.matrix}, wanted one of {sorted(KR_KB)}")
    kr, kb = KR_KB[colour.matrix]
    luma = torch.tensor([kr, 1 - kr - kb, kb], dtype=torch.float64)
    unit = torch.eye(3, dtype=torch.float64)
    rows = torch.stack([luma, (unit[2] - luma) / (2 * (1 - kb)), (unit[0] - luma) / (2 * (1 - kr))])
    limited = colour.range == LIMITED
    scale = torch.tensor([219, 224, 224] if limited else [255, 255, 255], dtype=torch.float64) / 255
    offset = torch.tensor([16 if limited else 0, 128, 128], dtype=torch.float64)
    return torch.cat([rows * scale[:, None], offset[:, None]], 1)


def rgb_of_yuv(colour: Colour) -> Tensor:
    """float64 [3, 4]: the inverse of yuv_of_rgb."""
    forward = yuv_of_rgb(colour)
    inverse = torch.linalg.inv(forward[:, :3])
    return torch.cat([inverse, -inverse @ forward[:, 3:]], 1)
