"""The host side of paste_back: what it asks of its tensors, and its launches."""

from __future__ import annotations

import numpy as np
import torch
import triton
from torch import Tensor

from flashlips_edge.face.crop import CHANGE_HIGH, CHANGE_LOW, MOUTH, Region
from flashlips_edge.media.colour import Colour
from kernels.checks import check_like
from kernels.frames import check_frame, invert
from kernels.paste_back.blend import blend_nv12_kernel, blend_rgb_kernel
from kernels.paste_back.replace import blur_kernel, change_kernel
from kernels.paste_back.weights import feather, gaussian
from kernels.yuv import yuv_of_rgb

BLOCK, BLEND = 512, 128  # pixels of a program on the crop; pixels or quads of one on the frame: one to a thread, which needs many registers
SMALLEST = 16  # crop, in pixels


def paste_back(
    frame: Tensor, transform: Tensor, crop: Tensor, edited: Tensor, region: Region = MOUTH, colour: Colour | None = None
) -> Tensor:
    """A copy of the frames with the edited mouths blended in.

    frame uint8 RGB [B, H, W, 3], or NV12 [B, 3 * H / 2, W] whose numbers mean ``colour``; rows may have a pitch. transform float [B, 2, 3]
    on the CPU: from frame to crop pixels. crop [B, 3, S, S] in [0, 1] as warp_crop gives it; edited [B, 3, S, S] as the latent decoder
    gives it, and cut to [0, 1] here. Raises ValueError naming what has another shape, type, stride or place.
    """
    height, width = check_frame("paste_back", frame, transform, colour)
    size = crop.shape[-1]
    for name, tensor in (("crop", crop), ("edited", edited)):
        check_like("paste_back", name, tensor, (len(frame), 3, size, size), frame)
    if size < SMALLEST:
        raise ValueError(f"paste_back: crop has sides of {size}, wanted at least {SMALLEST}")
    crop, edited = crop.contiguous(), edited.contiguous()
    out = torch.empty(frame.shape, device=frame.device, dtype=torch.uint8).copy_(frame)
    corners, across, down = _rectangles(transform.double().numpy(), size, region, height, width)
    places = torch.cat([transform.flatten(1).float(), corners], 1).to(frame.device)
    mask = feather(size, region, frame.device)
    weight = _replaced(crop, edited, mask)
    sizes = height, width, size, across, down, frame.stride(0), frame.stride(1)
    if colour is None:
        blend_rgb_kernel[(triton.cdiv(across * down, BLEND), len(frame))](
            frame, out, crop, edited, weight, mask, places, *sizes, BLOCK=BLEND
        )  # fmt: skip
    else:
        matrix = yuv_of_rgb(colour).float().to(frame.device)
        blend_nv12_kernel[(triton.cdiv(across * down // 4, BLEND), len(frame))](
            frame, out, crop, edited, weight, mask, places, matrix, *sizes, BLOCK=BLEND
        )  # fmt: skip
    return out


def _replaced(crop: Tensor, edited: Tensor, mask: Tensor) -> Tensor:
    """float32 [B, S, S]: feather times the share of the frame's own detail that goes."""
    b, _, size, _ = crop.shape
    taps = gaussian(size, crop.device)
    amount, along, weight = (torch.empty(b, size, size, device=crop.device) for _ in range(3))
    grid = (triton.cdiv(size * size, BLOCK), b)
    change_kernel[grid](crop, edited, amount, size * size, BLOCK=BLOCK)
    common = {"REACH": len(taps) // 2, "BLOCK": BLOCK}
    blur_kernel[grid](amount, along, taps, mask, size, CHANGE_LOW, CHANGE_HIGH, DOWN=False, **common)
    blur_kernel[grid](along, weight, taps, mask, size, CHANGE_LOW, CHANGE_HIGH, DOWN=True, **common)
    return weight


def _rectangles(transforms: np.ndarray, size: int, region: Region, height: int, width: int) -> tuple[Tensor, int, int]:
    """Left and top of what each paste may change, float32 [B, 2], even; and the width and height, even, that hold every one of them."""
    signs = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]])
    corners = np.vstack([[[region.centre_x], [region.centre_y]] + signs * [[region.radius_x], [region.radius_y]], np.ones((1, 4))])
    corners[:2] *= size
    starts, ends = [], []
    for transform in transforms:
        found = invert(transform) @ corners  # [2, 4] in frame pixels
        limits = np.array([width, height])
        starts.append(np.clip(np.floor(found.min(1)) // 2 * 2, 0, limits // 2 * 2))
        ends.append(np.clip(np.ceil(found.max(1)) + 1, 0, limits))
    across, down = np.maximum(np.ceil((np.array(ends) - np.array(starts)).max(0) / 2) * 2, 2).astype(int)
    return torch.from_numpy(np.array(starts)).float(), int(across), int(down)
