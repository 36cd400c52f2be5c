"""warp_crop in plain torch."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor

from flashlips_edge.media.colour import Colour
from kernels.warp_crop.geometry import Grid, grid_of, halve
from kernels.yuv import rgb_of_yuv


def warp_crop(frame: Tensor, transform: Tensor, size: int, colour: Colour | None = None) -> Tensor:
    """frame uint8 RGB [B, H, W, 3], or NV12 [B, 3 * H / 2, W] of this colour; transform [B, 2, 3] from frame to crop pixels -> [B, 3, S, S]
    in [0, 1], whole 255ths, float64."""
    images = []
    for one, matrix in zip(frame, transform.numpy()):
        if colour is None:
            rgb = sample(one, grid_of(matrix, one.shape[1], one.shape[0], size), size)
        else:
            height, width = one.shape[0] * 2 // 3, one.shape[1]
            grid = grid_of(matrix, width, height, size)
            luma = sample(one[:height, :, None], grid, size)
            chroma = sample(one[height:].reshape(height // 2, width // 2, 2), halve(grid), size)
            one_more = torch.ones_like(luma)
            rgb = torch.cat([luma, chroma, one_more], 2) @ rgb_of_yuv(colour).T.to(frame.device)
        images.append((rgb.clamp(0, 255) + 0.5).floor() / 255)
    return torch.stack(images).permute(0, 3, 1, 2)


def sample(plane: Tensor, grid: Grid, size: int) -> Tensor:
    """plane [h, w, C] -> float64 [size, size, C]: linear between the grid's cells, each the mean of the pixels it covers; cells repeat
    beyond the border."""
    y, x = np.mgrid[0:size, 0:size]
    columns, across = _taps(grid.matrix[0] @ (x.ravel(), y.ravel(), np.ones(x.size)), grid.left, grid.step_x, grid.columns)
    rows, down = _taps(grid.matrix[1] @ (x.ravel(), y.ravel(), np.ones(x.size)), grid.top, grid.step_y, grid.rows)
    total = torch.zeros(size * size, plane.shape[2], dtype=torch.float64)
    for row, of_row in zip(rows, down):
        for column, of_column in zip(columns, across):
            values = plane.cpu()[row.clip(0, plane.shape[0] - 1), column.clip(0, plane.shape[1] - 1)]
            total += values.double() * torch.from_numpy(of_row * of_column)[:, None]
    return total.reshape(size, size, -1).to(plane.device)


def _taps(position: np.ndarray, start: float, step: float, cells: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The pixels along one axis that each position [N] reads, and their weights: some [N] of each."""
    cell = np.floor(position)
    near, far = np.clip(cell, 0, cells - 1), np.clip(cell + 1, 0, cells - 1)
    pixels = [np.floor(start + near * step).astype(int) + i for i in range(ceil(2 * step) + 1)]
    share = position - cell

    def cover(pixel: np.ndarray, cell: np.ndarray) -> np.ndarray:
        begin = start + cell * step
        return np.maximum(0, np.minimum(pixel + 1, begin + step) - np.maximum(pixel, begin)) / step

    return pixels, [(1 - share) * cover(pixel, near) + share * cover(pixel, far) for pixel in pixels]
