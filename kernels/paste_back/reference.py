"""paste_back in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from flashlips_edge.face.crop import CHANGE_HIGH, CHANGE_LOW, MOUTH, Region
from flashlips_edge.media.colour import Colour
from kernels.paste_back.weights import feather, gaussian
from kernels.yuv import yuv_of_rgb


def paste_back(
    frame: Tensor, transform: Tensor, crop: Tensor, edited: Tensor, region: Region = MOUTH, colour: Colour | None = None
) -> Tensor:
    """result = frame + sample(mask * change) - sample(mask * replaced) * (frame - sample(crop)), float64 inside.

    frame uint8 RGB [B, H, W, 3], or NV12 [B, 3 * H / 2, W] of this colour; transform [B, 2, 3] from frame to crop pixels; crop and edited
    [B, 3, S, S] in [0, 1]. An NV12 frame is blended in its own colours: outside of the mask its bytes stay as they are.
    """
    size, edited = crop.shape[-1], edited.clamp(0, 1)
    mask = feather(size, region, frame.device).double()
    crop, change = crop.double() * 255, (edited.double() - crop.double()) * 255
    replaced = replacement(change) * mask  # [B, S, S]
    mean = torch.zeros(3, 1, 1, dtype=torch.float64, device=frame.device)
    if colour is not None:
        matrix = yuv_of_rgb(colour).to(frame.device)
        mean = matrix[:, 3:, None]
        crop, change = (torch.einsum("ij,bjyx->biyx", matrix[:, :3], each) for each in (crop, change))
    layers = torch.cat([change * mask, replaced[:, None], crop + mean], 1)  # [B, 7, S, S]
    pasted = []
    for one, matrix, of_crop in zip(frame, transform.double().to(frame.device), layers):
        if colour is None:
            height, width = one.shape[:2]
            pasted.append(_blend(one.permute(2, 0, 1), _sample(of_crop, matrix, height, width)).permute(1, 2, 0))
            continue
        height, width = one.shape[0] * 2 // 3, one.shape[1]
        sampled = _sample(of_crop, matrix, height, width)
        luma = _blend(one[:height][None], sampled[[0, 3, 4]])
        chroma = one[height:].reshape(height // 2, width // 2, 2).permute(2, 0, 1)
        quarter = F.avg_pool2d(torch.cat([sampled, sampled[3:4] * sampled[4:]])[None], 2)[0]  # the products vary within the four pixels
        value = chroma + quarter[1:3] - quarter[3] * chroma + quarter[8:10]
        interleaved = (value.clamp(0, 255) + 0.5).floor().to(torch.uint8).permute(1, 2, 0).reshape(height // 2, width)
        pasted.append(torch.cat([luma[0], interleaved]))
    return torch.stack(pasted)


def replacement(change: Tensor) -> Tensor:
    """change [B, 3, S, S] in grey levels -> [B, S, S] in [0, 1]: 1 where the picture is new, so that the old one's detail must go."""
    taps = gaussian(change.shape[-1], change.device).double()
    amount = change.abs().amax(1, keepdim=True)  # [B, 1, S, S]
    for axis in (0, 1):
        padding = (len(taps) // 2, len(taps) // 2, 0, 0) if axis == 0 else (0, 0, len(taps) // 2, len(taps) // 2)
        shape = (1, 1, 1, -1) if axis == 0 else (1, 1, -1, 1)
        amount = F.conv2d(F.pad(amount, padding, mode="reflect"), taps.reshape(shape))
    return ((amount[:, 0] - CHANGE_LOW) / (CHANGE_HIGH - CHANGE_LOW)).clamp(0, 1)


def _blend(source: Tensor, sampled: Tensor) -> Tensor:
    """source [C, h, w]; sampled: C of the change, 1 of the replaced share, C of the crop."""
    count = len(source)
    change, replaced, coarse = sampled[:count], sampled[count], sampled[count + 1 :]
    return (source + change - replaced * (source - coarse)).clamp(0, 255).add(0.5).floor().to(torch.uint8)


def _sample(layers: Tensor, transform: Tensor, height: int, width: int) -> Tensor:
    """layers [7, S, S] at the crop position of each frame pixel, [7, height, width]: linear; the first four end in 0, the crop repeats."""
    size = layers.shape[-1]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)]).double().flatten(1).to(layers.device)
    u, v = (transform @ at).reshape(2, height, width)
    column, row = u.floor(), v.floor()
    total = torch.zeros(len(layers), height, width, dtype=torch.float64, device=layers.device)
    for i in (0, 1):
        for j in (0, 1):
            weight = (1 - (u - column - i).abs()) * (1 - (v - row - j).abs())
            inside = ((column + i >= 0) & (column + i < size) & (row + j >= 0) & (row + j < size)).double()
            found = layers[:, (row + j).clamp(0, size - 1).long(), (column + i).clamp(0, size - 1).long()]
            total[:4] += weight * inside * found[:4]
            total[4:] += weight * found[4:]
    return total
