"""What the kernels that read frames share: what they ask of a frame, and a transform's inverse."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flashlips_edge.media.colour import Colour
from kernels.checks import check_device


def check_frame(operation: str, frame: Tensor, transform: Tensor, colour: Colour | None) -> tuple[int, int]:
    """Height and width of frames uint8 RGB [B, H, W, 3], or NV12 [B, 3 * H / 2, W] where there is a colour; transform [B, 2, 3] on the CPU.

    Raises ValueError naming what does not fit.
    """
    check_device(operation, "frame", frame)
    shape = tuple(frame.shape)
    nv12 = colour is not None
    fits = len(shape) == 3 and shape[1] % 3 == 0 and shape[2] % 2 == 0 if nv12 else len(shape) == 4 and shape[3] == 3
    if frame.dtype != torch.uint8 or not fits:
        wanted = "NV12 [B, 3 * H / 2, W] with H and W even" if nv12 else "RGB [B, H, W, 3], or NV12 [B, 3 * H / 2, W] with its colour"
        raise ValueError(f"{operation}: frame is {frame.dtype} {shape}, wanted torch.uint8 {wanted}")
    inner = (1,) if nv12 else (3, 1)
    if frame.stride()[2:] != inner:
        raise ValueError(f"{operation}: frame has strides {frame.stride()}, wanted rows without gaps between pixels")
    if transform.shape != (shape[0], 2, 3) or not transform.is_floating_point() or transform.is_cuda:
        found = f"{transform.dtype} {tuple(transform.shape)} on {transform.device}"
        raise ValueError(f"{operation}: transform is {found}, wanted floating ({shape[0]}, 2, 3) on the CPU")
    return (shape[1] * 2 // 3, shape[2]) if nv12 else (shape[1], shape[2])


def invert(transform: np.ndarray) -> np.ndarray:
    """The inverse [2, 3] of a similarity [2, 3]."""
    linear = np.linalg.inv(transform[:, :2])
    return np.hstack([linear, -linear @ transform[:, 2:]])
