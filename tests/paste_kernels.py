"""A stand-in for the GPU's driver that knows what the kernels of paste_back do, in NumPy, as their launches ask for it.

kernels/paste_back has the tests of the kernels themselves."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from standins import Driver, enqueue

from kernels.aot.compile import Compiled
from kernels.aot.folder import write
from kernels.chips import find_chip
from kernels.paste_back.specialisations import specialisations

Arguments = dict[str, Any]


def write_kernels(folder: Path, size: int, target: str = "orin") -> None:
    """The folder that `python -m kernels.aot` would write for crops of this size; a cubin is its kernel's name."""
    chip = find_chip(target)
    wanted = specialisations({"crop_size": size}, 1, chip.capability)
    compiled = [Compiled(each, each.name.encode(), "", each.function.__name__, 4, 0, 32, 0, 0, 2) for each in wanted]
    write(folder, compiled, chip, "nano", [1])


class PasteDriver(Driver):
    """`launched` are the kernels in the order of their launches; `entries` is the manifest's, by name."""

    entries: dict[str, Any]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.entries, self.launched = {}, []

    def cuCtxGetCurrent(self) -> tuple[Any, ...]:  # noqa: N802
        return 0, 77

    def cuModuleLoadData(self, image: bytes) -> tuple[Any, ...]:  # noqa: N802
        return 0, image.decode()

    def cuModuleGetFunction(self, module: str, entry: bytes) -> tuple[Any, ...]:  # noqa: N802
        return 0, module

    def cuModuleUnload(self, module: str) -> tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuLaunchKernel(self, name: str, *launch: Any) -> tuple[Any, ...]:  # noqa: N802
        *shape, stream, (values, _), _ = launch
        entry = self.entries[name]
        arguments = entry["constants"] | dict(zip((each["name"] for each in entry["arguments"]), values))
        self.launched.append(name)
        assert shape[3] == entry["block"][0]
        enqueue(stream, lambda: KERNELS[entry["entry"]](arguments, shape[0]))
        return (0,)


def _array(address: int, shape: tuple[int, ...], kind: Any = ctypes.c_float) -> np.ndarray:
    return np.ctypeslib.as_array((kind * int(np.prod(shape))).from_address(address)).reshape(shape)


def _change(a: Arguments, blocks: int) -> None:
    planes = (3, a["plane"])
    change = np.abs(np.clip(_array(a["edited"], planes), 0, 1) - _array(a["crop"], planes))
    _array(a["amount"], (a["plane"],))[: blocks * a["BLOCK"]] = change.max(0) * 255


def _blur(a: Arguments, blocks: int) -> None:
    size, reach, axis = a["size"], a["REACH"], 0 if a["DOWN"] else 1
    assert blocks * a["BLOCK"] >= size * size
    padding = [(reach, reach) if i == axis else (0, 0) for i in range(2)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(_array(a["source"], (size, size)), padding, "reflect"), 2 * reach + 1, axis)
    total = windows @ _array(a["taps"], (2 * reach + 1,))
    if a["DOWN"]:
        total = np.clip((total - a["low"]) / (a["high"] - a["low"]), 0, 1) * _array(a["feather"], (size, size))
    _array(a["out"], (size, size))[:] = total


def _blend(a: Arguments, blocks: int) -> None:
    size, height, width = a["size"], a["height"], a["width"]
    assert blocks * a["BLOCK"] >= a["rectangle_width"] * a["rectangle_height"]
    places = _array(a["places"], (8,))
    left, top = places[6:].astype(int)
    y, x = np.mgrid[top : min(height, top + a["rectangle_height"]), left : min(width, left + a["rectangle_width"])]
    u, v = places[0] * x + places[1] * y + places[2], places[3] * x + places[4] * y + places[5]
    crop, edited = (_array(a[name], (3, size, size)) for name in ("crop", "edited"))
    amount, weight = _array(a["feather"], (size, size)), _array(a["weight"], (size, size))
    layers = np.concatenate([amount * (np.clip(edited, 0, 1) - crop) * 255, weight[None], crop * 255])  # [7, S, S]
    sampled = np.zeros((7, *x.shape))
    for i in (0, 1):
        for j in (0, 1):
            column, row = np.floor(u) + i, np.floor(v) + j
            share = (1 - np.abs(u - column)) * (1 - np.abs(v - row))
            inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
            found = layers[:, np.clip(row, 0, size - 1).astype(int), np.clip(column, 0, size - 1).astype(int)]
            found[:4] *= inside
            sampled += share * found
    strides = (a["stride_y"], 3, 1)
    frame = np.lib.stride_tricks.as_strided(_array(a["frame"], (height * width * 3,), ctypes.c_uint8), (height, width, 3), strides)
    source = frame[y, x].astype(float).transpose(2, 0, 1)
    result = np.floor(np.clip(source + sampled[:3] - sampled[3] * (source - sampled[4:]), 0, 255) + 0.5)
    _array(a["out"], (height, width, 3), ctypes.c_uint8)[y, x] = result.transpose(1, 2, 0)


KERNELS = {"change_kernel": _change, "blur_kernel": _blur, "blend_rgb_kernel": _blend}
