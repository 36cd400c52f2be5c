"""Memory between runs on a GPU: places for what is kept there, and copies to and from the host that overlap with what is computed.

Each direction has a stream of its own and two turns of pinned memory: while one is computed with, the next is on its way. Events keep
the order. All of it is for one thread at a time, but for what `Download.start` gives.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from flashlips_edge.engines.cuda import Device, DeviceArray

CHUNK = 32  # places that are taken from the GPU at a time


class Slot:
    """A place in the GPU's memory, free again when nobody holds this any more. To NumPy it is an array: that waits, and copies."""

    def __init__(self, device: Device, array: DeviceArray, free: deque[DeviceArray]) -> None:
        self.array, self._device, self._free = array, device, free
        self.kept = False  # for longer than it takes to compute with it

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._device.use()
        return self._device.copy_out(self.array, self._device.shared_stream()).astype(dtype or self.array.dtype, copy=False)

    def __del__(self) -> None:
        self._free.append(self.array)


class Slots:
    """Places of one shape, float32. `room` says whether those that are held take no more than `limit` bytes."""

    def __init__(self, device: Device, shape: tuple[int, ...], limit: int) -> None:
        self._device, self._shape = device, shape
        self._most = limit // DeviceArray(0, shape, np.dtype(np.float32)).nbytes
        self._free: deque[DeviceArray] = deque()
        self._taken = 0

    @property
    def room(self) -> bool:
        return self._taken - len(self._free) <= self._most

    def take(self) -> Slot:
        """A place, beyond the limit too. UserError where the GPU has no more memory."""
        if not self._free:
            chunk = self._device.array((CHUNK, *self._shape), np.float32)
            self._taken += CHUNK
            self._free.extend(chunk[i] for i in range(CHUNK))
        return Slot(self._device, self._free.popleft(), self._free)


class Upload:
    """Host to GPU, arrays of at most this size."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: type = np.float32) -> None:
        self._device, self._stream = device, device.stream(self)
        self._turns = deque(_Turn(device, shape, dtype) for _ in range(2))

    @contextmanager
    def of(self, host: np.ndarray) -> Iterator[DeviceArray]:
        """The array on the GPU, for what the block enqueues on the shared stream. Nothing is waited for but the last but one copy."""
        device, turn = self._device, self._turns[0]
        self._turns.rotate()
        device.wait_for(turn.copied)
        pinned, array = turn.views((len(host), *host.shape[1:]))
        np.copyto(pinned, host)
        device.follow(self._stream, turn.used)
        device.copy_in(array, pinned, self._stream)
        device.mark(turn.copied, self._stream)
        device.follow(device.shared_stream(), turn.copied)
        yield array
        device.mark(turn.used, device.shared_stream())


class Download:
    """GPU to host, arrays of at most this size."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: type = np.float32) -> None:
        self._device, self._stream = device, device.stream(self)
        self._turns = deque(_Turn(device, shape, dtype) for _ in range(2))
        self._coming: dict[int, Coming] = {}  # by turn

    def start(self, array: DeviceArray) -> Coming:
        """Enqueue the way back of what the shared stream leaves in `array`; that may then be written anew."""
        device, turn = self._device, self._turns[0]
        self._turns.rotate()
        if id(turn) in self._coming:
            self._coming[id(turn)].wait()
        pinned, between = turn.views(array.shape)
        device.copy_within(between, array.address, device.shared_stream())
        device.mark(turn.used, device.shared_stream())
        device.follow(self._stream, turn.used)
        device.copy_back(pinned, between, self._stream)
        device.mark(turn.copied, self._stream)
        self._coming[id(turn)] = Coming(device, turn, pinned)
        return self._coming[id(turn)]


class Coming:
    """An array that is on its way to the host. Any thread may wait for it."""

    def __init__(self, device: Device, turn: _Turn, pinned: np.ndarray) -> None:
        self._device, self._turn = device, turn
        self._pinned: np.ndarray | None = pinned
        self._host: np.ndarray
        self._lock = threading.Lock()

    def wait(self) -> np.ndarray:
        """The array, the caller's own."""
        with self._lock:
            if self._pinned is not None:
                self._device.use()
                self._device.wait_for(self._turn.copied)
                self._host, self._pinned = self._pinned.copy(), None
            return self._host


class _Turn:
    """Memory on both sides, and two marks: `copied` between them, and `used` by the shared stream."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: type) -> None:
        self.pinned, self.array = device.pinned(shape, dtype).reshape(-1), device.array(shape, dtype)
        self.copied, self.used = device.event(self), device.event(self)

    def views(self, shape: tuple[int, ...]) -> tuple[np.ndarray, DeviceArray]:
        return self.pinned[: int(np.prod(shape))].reshape(shape), self.array.view(shape)
