"""The tables that paste_back multiplies by: how much of the crop's change reaches the frame, and the blur of that change."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from flashlips_edge.face.crop import Region

BLUR = 80  # the blur's deviation is the crop's side by this


@lru_cache(maxsize=8)
def feather(size: int, region: Region, device: torch.device) -> Tensor:
    """float32 [S, S]: 1 inside the region's superellipse, smoothly 0 at its edge."""
    at = torch.arange(size, dtype=torch.float64) / (size - 1)
    x = ((at - region.centre_x) / region.radius_x).abs() ** 3
    y = ((at - region.centre_y) / region.radius_y).abs() ** 3
    share = ((1 - (x[None, :] + y[:, None]) ** (1 / 3)) / region.feather).clamp(0, 1)
    return (share * share * (3 - 2 * share)).float().to(device)


@lru_cache(maxsize=8)
def gaussian(size: int, device: torch.device) -> Tensor:
    """float32 [2 * R + 1], sum 1: a Gaussian of deviation S / 80, cut at four deviations."""
    deviation = size / BLUR
    reach = (round(8 * deviation + 1) | 1) // 2
    taps = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * deviation**2))
    return (taps / taps.sum()).float().to(device)
