"""From crops and lips to pictures: encode, edit, decode, one after the other. On the CPU by way of NumPy; where the three graphs have
TensorRT engines everything between stays in the GPU's memory, the latents that are kept too, and two batches may be under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from flashlips_edge.engines.cuda import DeviceArray
from flashlips_edge.engines.tensorrt import TensorRtEngine
from flashlips_edge.engines.transfers import Download, Slot, Slots, Upload
from flashlips_edge.face.crop import Crop, rectangle
from flashlips_edge.talking.paste import DevicePaste, find_paste
from flashlips_edge.talking.pictures import onto_crops, to_network

LATENTS_BYTES = 256 << 20  # of the GPU's memory, for latents that are kept; what is beyond is kept by the host
CHAINS_KEPT = 2  # as many as bundles
FLOAT32 = np.dtype(np.float32)

Latent: TypeAlias = np.ndarray | Slot  # [C, h, w]; NumPy takes both
Edited: TypeAlias = "np.ndarray | DevicePicture"  # float32 [S, S, 3] in 0 to 255; NumPy takes both
Pictures = Callable[[], Sequence[Edited]]  # gives them when they are there


class Chain(Protocol):
    """S is the crop's size; C, h, w are the latent's."""

    def encode(self, crops: np.ndarray) -> Sequence[Latent]:
        """Latents of crops uint8 [B, S, S, 3], where the graphs run."""

    def keep(self, latent: Latent) -> Latent:
        """The latent as it is kept for when it is needed again, at half precision or where the graphs run."""

    def begin(self, crops: np.ndarray, latents: Sequence[Latent], references: Sequence[Sequence[Latent]], lips: np.ndarray) -> Pictures:
        """Pictures of crops uint8 [B, S, S, 3] that speak lips [B, 12]: for each crop its latent, and four of the same face. Above the
        mouth they are the crops' own."""


class HostChain:
    """By way of `Networks.encode` and `Networks.edit`; pictures are made when they are asked for."""

    def __init__(self, encode: Callable[[np.ndarray], np.ndarray], edit: Callable[..., np.ndarray]) -> None:
        self._encode, self._edit = encode, edit

    def encode(self, crops: np.ndarray) -> Sequence[Latent]:
        return list(self._encode(crops))

    def keep(self, latent: Latent) -> Latent:
        return np.asarray(latent).astype(np.float16, copy=False)

    def begin(self, crops: np.ndarray, latents: Sequence[Latent], references: Sequence[Sequence[Latent]], lips: np.ndarray) -> Pictures:
        known = np.stack(latents).astype(np.float32)
        of_face = np.stack([np.concatenate(four) for four in references]).astype(np.float32)
        return lambda: list(self._edit(crops, known, of_face, lips))


class DeviceChain:
    """By way of three engines of one GPU, decoding the latent from `first_row` on. Any thread may call it.

    The host touches crops and lips on their way in, and on their way out what is pasted, or without `paste` decoded pictures; both ways
    are copied while other batches are computed.
    """

    def __init__(
        self, encoder: TensorRtEngine, editor: TensorRtEngine, decoder: TensorRtEngine, first_row: int, paste: DevicePaste | None = None
    ) -> None:
        self._encoder, self._editor, self._decoder, self._first_row = encoder, editor, decoder, first_row
        self._device, self._paste = encoder.device, paste
        device = self._device
        self._device.use()
        self._stream = device.shared_stream()
        self._lock = threading.Lock()
        self._at_once = min(engine.at_once for engine in (encoder, editor, decoder))
        _, *shape = editor.largest["latent"]
        self._shape = tuple(shape)
        self._slots = Slots(device, self._shape, LATENTS_BYTES)
        self._edited = device.array((self._at_once, *shape), np.float32)
        self._crops, self._lips = (Upload(device, (self._at_once, *e.largest[n][1:])) for e, n in ((encoder, "image"), (editor, "lips")))
        self._latents = Upload(device, (1, *shape))
        self._pictures = Download(device, (self._at_once, *decoder.largest["image"][1:]))
        self._decoded: Slots | None = None  # for what waits to be pasted

    def encode(self, crops: np.ndarray) -> Sequence[Latent]:
        found: list[Latent] = []
        with self._lock:
            self._device.use()
            for start in range(0, len(crops), self._at_once):
                found += self._encode(to_network(crops[start : start + self._at_once]))
        return found

    def keep(self, latent: Latent) -> Latent:
        with self._lock:
            self._device.use()
            slot = self._slot(latent)
            slot.kept = slot.kept or self._slots.room
            return slot if slot.kept else np.asarray(latent).astype(np.float16, copy=False)

    def begin(self, crops: np.ndarray, latents: Sequence[Latent], references: Sequence[Sequence[Latent]], lips: np.ndarray) -> Pictures:
        found: list[Callable[[], Sequence[Edited]]] = []
        with self._lock:
            self._device.use()
            for start in range(0, len(crops), self._at_once):
                part = slice(start, start + self._at_once)
                found.append(self._begin(crops[part], latents[part], references[part], lips[part]))
        return lambda: [picture for part in found for picture in part()]

    def paste(self, surroundings: np.ndarray, crop: Crop, decoded: Slot) -> tuple[int, int, np.ndarray]:
        """As `face.crop.paste_patch`, of what the decoder gave [3, S', S]."""
        assert self._paste is not None
        left, top, right, bottom = box = rectangle(surroundings.shape, crop)
        if right <= left or bottom <= top:
            return 0, 0, surroundings[:0, :0].copy()
        with self._lock:
            self._device.use()
            rows = self._paste.start(surroundings, crop, decoded.array, box)
        return left, top, rows.wait()[:, left:right]

    def _encode(self, images: np.ndarray) -> list[Slot]:
        slots = [self._slots.take() for _ in images]

        def take(outputs: dict[str, DeviceArray]) -> None:
            for i, slot in enumerate(slots):
                self._copy(slot.array, outputs["latent"][i])

        with self._crops.of(images) as uploaded:
            self._encoder.enqueue({"image": uploaded}, lambda memory: self._copy(memory["image"], uploaded), take)
        return slots

    def _begin(self, crops: np.ndarray, latents: Sequence[Latent], references: Sequence[Sequence[Latent]], lips: np.ndarray) -> Pictures:
        (channels, rows, width), batch = self._shape, len(lips)
        edited = self._edited.view((batch, *self._shape))
        of_face = DeviceArray(0, (batch, 4 * channels, rows, width), FLOAT32)
        window = DeviceArray(0, (batch, channels, rows - self._first_row, width), FLOAT32)

        def fill(memory: dict[str, DeviceArray]) -> None:
            places = memory["reference_latents"].view((batch, 4, *self._shape))
            for i, (latent, four) in enumerate(zip(latents, references)):
                self._copy(memory["latent"][i], self._slot(latent).array)
                for j, reference in enumerate(four):
                    self._copy(places[i][j], self._slot(reference).array)
            self._copy(memory["lips"], uploaded)

        with self._lips.of(lips.astype(np.float32)) as uploaded:
            inputs = {"latent": edited, "reference_latents": of_face, "lips": uploaded}
            self._editor.enqueue(inputs, fill, lambda outputs: self._copy(edited, outputs["edited_latent"]))
        return self._decoder.enqueue(
            {"edited_latent": window},
            lambda memory: self._device.copy_last_rows(memory["edited_latent"], edited, self._stream),
            lambda outputs: self._give(crops, outputs["image"]),
        )

    def _give(self, crops: np.ndarray, images: DeviceArray) -> Pictures:
        """The decoder's [B, 3, S', S] on its way to the host, or in places of its own, to be pasted."""
        if self._paste is None:
            coming = self._pictures.start(images)
            return lambda: list(onto_crops(crops, coming.wait()))
        self._decoded = self._decoded or Slots(self._device, images.shape[1:], 0)
        pictures = [DevicePicture(self, crop, self._decoded.take()) for crop in crops]
        for i, picture in enumerate(pictures):
            self._copy(picture.decoded.array, images[i])
        return lambda: pictures

    def _slot(self, latent: Latent) -> Slot:
        """The latent on the GPU; one that is not there yet goes to a place that is free again when nobody holds it."""
        if isinstance(latent, Slot):
            return latent
        slot = self._slots.take()
        with self._latents.of(latent[None].astype(np.float32)) as uploaded:
            self._copy(slot.array, uploaded[0])
        return slot

    def _copy(self, to: DeviceArray, source: DeviceArray) -> None:
        self._device.copy_within(to, source.address, self._stream)


class DevicePicture:
    """An edited crop in the GPU's memory: `decoded` [3, S', S] is its lower part, above it is the crop's own. An array to NumPy."""

    def __init__(self, chain: DeviceChain, crop: np.ndarray, decoded: Slot) -> None:
        self._chain, self._crop, self.decoded = chain, crop, decoded

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return onto_crops(self._crop[None], np.asarray(self.decoded)[None])[0].astype(dtype or np.float32, copy=False)

    def paste_patch(self, surroundings: np.ndarray, crop: Crop) -> tuple[int, int, np.ndarray]:
        """As `face.crop.paste_patch`, without the picture on the host."""
        return self._chain.paste(surroundings, crop, self.decoded)


@lru_cache(maxsize=CHAINS_KEPT)
def device_chain(
    encoder: TensorRtEngine, editor: TensorRtEngine, decoder: TensorRtEngine, first_row: int, kernels: Path | None
) -> DeviceChain:
    """The one chain of these engines, for all who run them in this process. It pastes too if the folder `kernels` has what that takes."""
    paste = None if kernels is None else find_paste(kernels, encoder.device, encoder.largest["image"][-1])
    return DeviceChain(encoder, editor, decoder, first_row, paste)
