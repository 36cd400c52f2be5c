"""What is compiled ahead of time of paste_back: a preset's crop into RGB and NV12 frames of any size."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from flashlips_edge.media.colour import Colour
from kernels.launches import record
from kernels.paste_back.kernel import paste_back
from kernels.specialisation import Specialisation
from kernels.warp_crop.specialisations import FRAME, SIDE

FLOPS = {"change_kernel": 9, "blend_rgb_kernel": 120, "blend_nv12_kernel": 150}  # for each pixel
NUMBERS = dict.fromkeys(("height", "width", "rectangle_width", "rectangle_height", "stride_b", "stride_y"), "i32")


def specialisations(preset: dict[str, Any], batch: int, capability: int) -> list[Specialisation]:
    """The kernels of the crop, and one blend for each layout of the frame; the same on every chip. The frame's sizes, its rectangle's
    and its strides stay arguments. Bytes of a blend are those of the rectangle: the rest of the frame is copied."""
    size, (height, width) = preset["crop_size"], FRAME
    scale = size / SIDE
    transform = torch.tensor([[scale, 0, -scale * 700], [0, scale, -scale * 300]]).expand(batch, 2, 3)
    picture = torch.empty(batch, 3, size, size, dtype=torch.float32, device="meta")  # as graphs give them
    found = {}
    for shape, colour in (((height, width, 3), None), ((height * 3 // 2, width), Colour.default(width, height))):
        frame = torch.empty(batch, *shape, dtype=torch.uint8, device="meta")
        for launch in record(partial(paste_back, frame, transform, picture, picture, colour=colour)):
            kernel, pixels, traffic = launch.function.__name__, batch * size**2, None
            name = f"paste_back_{kernel.removesuffix('_kernel')}_{batch}x{size}"
            if kernel == "blur_kernel":
                name += "_down" if launch.arguments["DOWN"] else ""
                flops = (4 * launch.arguments["REACH"] + 2) * pixels
            else:
                if kernel.startswith("blend"):
                    rectangle = batch * launch.arguments["rectangle_width"] * launch.arguments["rectangle_height"]
                    pixels, traffic = rectangle, 2 * rectangle * frame[0].numel() // (height * width) + 3 * 4 * 3 * rectangle
                flops = FLOPS[kernel] * pixels
            numbers = {key: kind for key, kind in NUMBERS.items() if key in launch.arguments}
            found[name] = launch.specialise("paste_back", name, flops, traffic, numbers)
    return list(found.values())
