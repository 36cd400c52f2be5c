"""The lips convolution in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def lips_conv(x: Tensor, lips: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 convolution, padded with zeros, of concat[x, lips expanded to h x w] (FlashLips, section 3.2).

    x [B, C, h, w], lips [B, 12], weight [out, C + 12, 3, 3], bias [out] -> [B, out, h, w]."""
    maps = lips[:, :, None, None].expand(-1, -1, x.shape[2], x.shape[3])  # [B, 12, h, w]
    return F.conv2d(torch.cat([x, maps], 1), weight, bias, padding=1)
