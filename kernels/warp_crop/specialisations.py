"""What is compiled ahead of time of warp_crop: a preset's crop from RGB and NV12 frames of any size."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from flashlips_edge.media.colour import Colour
from kernels.launches import record
from kernels.specialisation import Specialisation
from kernels.warp_crop.kernel import warp_crop

FRAME = (1080, 1920)  # the height and width that bytes are counted at
SIDE = 540  # of the face's square in it, pixels


def specialisations(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """One kernel for each layout of the frame, the same on every chip. The frame's height and strides stay arguments."""
    size, (height, width) = preset["crop_size"], FRAME
    scale = size / SIDE
    transform = torch.tensor([[scale, 0, -scale * 700], [0, scale, -scale * 300]]).expand(batch, 2, 3)
    found = []
    for layout, shape, colour in (("rgb", (height, width, 3), None), ("nv12", (height * 3 // 2, width), Colour.default(width, height))):
        frame = torch.empty(batch, *shape, dtype=torch.uint8, device="meta")
        [launch] = record(partial(warp_crop, frame, transform, size, torch.float16, colour))
        traffic = batch * (frame[0].numel() * SIDE**2 // (height * width) + 2 * 3 * size**2)
        numbers = {"height": "i32", "stride_b": "i32", "stride_y": "i32"}
        found.append(launch.specialise("warp_crop", f"warp_crop_{layout}_{batch}x{size}", 60 * batch * size**2, traffic, numbers))
    return found
