"""Where a crop's pixels lie in its frame, with the averaging that a strong reduction needs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.frames import invert

REDUCED = 0.6  # crop pixels to a frame pixel below which sampling between four pixels would alias: as in flashlips_edge.face.crop
MARGIN_PX = 4
WHOLE_PX = 1e-3  # a transform comes as float32: what was a whole pixel must not fall to the one before
FINER = 1.2  # the averaged picture's pixels to a crop pixel


class Grid(NamedTuple):
    """A reduced picture of columns x rows cells, each the mean of step_x x step_y pixels of a plane of width x height from left, top on;
    `matrix` [2, 3] takes crop pixels to its cells. Without reduction the cells are the plane's pixels."""

    matrix: np.ndarray
    left: float
    top: float
    step_x: float
    step_y: float
    columns: int
    rows: int
    width: int
    height: int

    def numbers(self) -> list[float]:
        """The kernel's 14 numbers."""
        return [*self.matrix.ravel().tolist(), *self[1:]]


def grid_of(transform: np.ndarray, width: int, height: int, size: int) -> Grid:
    """The grid that a crop of side ``size`` reads a frame through; ``transform`` [2, 3] is from frame to crop pixels."""
    transform = transform.astype(np.float64)
    inverse = invert(transform)
    scale = float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))
    if scale >= REDUCED:
        return Grid(inverse, 0, 0, 1, 1, width, height, width, height)
    x, y = inverse @ ((size - 1) / 2, (size - 1) / 2, 1)
    reach = size / 2 * np.abs(inverse[:, :2]).sum(1)  # half the side of the upright square around the crop
    x, y = x + WHOLE_PX, y + WHOLE_PX
    left, right = int(max(0, x - reach[0] - MARGIN_PX)), min(width, int(x + reach[0] + MARGIN_PX + 1))
    top, bottom = int(max(0, y - reach[1] - MARGIN_PX)), min(height, int(y + reach[1] + MARGIN_PX + 1))
    if right <= left or bottom <= top:
        raise ValueError(f"warp_crop: transform puts the crop outside the frame of {width} x {height}")
    columns, rows = (max(1, round(extent * scale * FINER)) for extent in (right - left, bottom - top))
    step_x, step_y = (right - left) / columns, (bottom - top) / rows
    matrix = inverse.copy()
    matrix[:, 2] += 0.5 - left, 0.5 - top
    matrix /= [[step_x], [step_y]]
    matrix[:, 2] -= 0.5
    return Grid(matrix, left, top, step_x, step_y, columns, rows, width, height)


def halve(grid: Grid) -> Grid:
    """The same grid on a plane of half the frame's width and height; where its cells are smaller than that plane's pixels, the pixels."""
    width, height = grid.width // 2, grid.height // 2
    if min(grid.step_x, grid.step_y) >= 2:
        return Grid(grid.matrix, grid.left / 2, grid.top / 2, grid.step_x / 2, grid.step_y / 2, grid.columns, grid.rows, width, height)
    matrix = grid.matrix.copy()
    matrix[:, 2] += 0.5
    matrix *= [[grid.step_x / 2], [grid.step_y / 2]]
    matrix[:, 2] += grid.left / 2 - 0.5, grid.top / 2 - 0.5
    return Grid(matrix, 0, 0, 1, 1, width, height, width, height)
