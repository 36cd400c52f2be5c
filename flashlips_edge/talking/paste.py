"""Pasting a mouth back on the GPU, by the kernels that a bundle has for it: what `face.crop.paste_patch` does on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flashlips_edge.engines.cubin import CubinKernels, read_manifest
from flashlips_edge.engines.cuda import Device, DeviceArray
from flashlips_edge.engines.transfers import Coming, Download, Upload
from flashlips_edge.face.crop import BLUR, Crop, feather
from flashlips_edge.talking.pictures import to_network

FIRST_PIXELS = 512 * 512  # of a face's surroundings that there is memory for at first


def find_paste(folder: Path, device: Device, size: int) -> DevicePaste | None:
    """From the kernels in `folder`, for crops of this size; None where it has none for this GPU, for float32 pictures."""
    if not (folder / "manifest.json").is_file():
        return None
    manifest = read_manifest(folder)
    entries = {entry["name"]: entry for entry in manifest["kernels"]}
    if manifest["capability"] != device.capability or not set(_names(size).values()) <= entries.keys():
        return None
    if any(a["type"] != "*fp32" for a in entries[_names(size)["blend"]]["arguments"] if a["name"] in ("crop", "edited")):
        return None
    return DevicePaste(device, CubinKernels(folder, device.driver), size)


def _names(size: int) -> dict[str, str]:
    kernels = {"change": "change", "along": "blur", "down": "blur", "blend": "blend_rgb"}
    return {key: f"paste_back_{kernel}_1x{size}{'_down' if key == 'down' else ''}" for key, kernel in kernels.items()}


class DevicePaste:
    """For crops [S, S] of one size. One thread at a time; all work is enqueued on the device's shared stream."""

    def __init__(self, device: Device, kernels: CubinKernels, size: int) -> None:
        self._device, self._kernels, self._size, self._stream = device, kernels, size, device.shared_stream()
        self._names = _names(size)
        device.own(self, kernels.close)
        reach = (kernels.entries[self._names["along"]]["constants"]["REACH"], size / BLUR)
        self._taps = self._table(cv2.getGaussianKernel(2 * reach[0] + 1, reach[1], cv2.CV_32F).ravel())
        self._feather = self._table(feather(size))
        self._amount, self._along, self._weight = (device.array((size, size), np.float32) for _ in range(3))
        self._edited = device.array((3, size, size), np.float32)
        self._crops, self._places = Upload(device, (1, 3, size, size)), Upload(device, (1, 8))
        self._take_memory(FIRST_PIXELS)

    def start(self, surroundings: np.ndarray, crop: Crop, decoded: DeviceArray, rectangle: tuple[int, int, int, int]) -> Coming:
        """Rows of `surroundings`, uint8 RGB [h, w, 3], from the rectangle's top to its bottom, with the mouth of `decoded`, the lower part
        [3, S', S] of an edited crop, in [0, 1]; on their way to the host."""
        (height, width), (left, top, right, bottom) = surroundings.shape[:2], rectangle
        if height * width > self._pixels:
            self._take_memory(max(height * width, 2 * self._pixels))
        place = np.array([[*crop.transform.ravel(), left, top]], np.float32)
        out = self._out.view(surroundings.shape)
        with (
            self._frames.of(surroundings) as frame,
            self._crops.of(to_network(crop.image[None])) as original,
            self._places.of(place) as places,
        ):
            self._device.copy_within(self._edited, original.address, self._stream)
            self._device.copy_last_rows(self._edited, decoded, self._stream)
            pictures: dict[str, Any] = {"crop": original, "edited": self._edited}
            self._launch("change", **pictures, amount=self._amount)
            self._launch("along", source=self._amount, out=self._along, taps=self._taps, feather=self._feather)
            self._launch("down", source=self._along, out=self._weight, taps=self._taps, feather=self._feather)
            tables: dict[str, Any] = {"weight": self._weight, "feather": self._feather, "places": places}
            sizes = {"height": height, "width": width, "rectangle_width": right - left, "rectangle_height": bottom - top}
            strides = {"stride_b": 3 * width * height, "stride_y": 3 * width}
            block = self._kernels.entries[self._names["blend"]]["constants"]["BLOCK"]
            grid = (-(-(right - left) * (bottom - top) // block), 1, 1)
            self._launch("blend", grid, frame=frame, out=out, **pictures, **tables, **sizes, **strides)
        return self._rows.start(out[top].view((bottom - top, width, 3)))

    def _launch(self, key: str, grid: tuple[int, int, int] | None = None, **arguments: Any) -> None:
        self._kernels.launch(self._names[key], arguments, self._stream, grid)

    def _table(self, values: np.ndarray) -> DeviceArray:
        table = self._device.array(values.shape, np.float32)
        self._device.copy_in(table, np.ascontiguousarray(values), self._stream)
        self._device.wait(self._stream)
        return table

    def _take_memory(self, pixels: int) -> None:
        """For surroundings of so many pixels."""
        self._pixels = pixels
        self._frames, self._rows = Upload(self._device, (pixels, 3), np.uint8), Download(self._device, (pixels, 3), np.uint8)
        self._out = self._device.array((pixels, 3), np.uint8)
