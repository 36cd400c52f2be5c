"""The GPU, through cuda-bindings: its facts, memory on both sides, one stream's copies, and CUDA graphs.

A device owns all memory, streams and graphs that it gave, until `close`; what nobody holds any more it frees when it is next asked for
memory. Any thread may use it; `use` makes its context that thread's.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from flashlips_edge.errors import UserError


@dataclass(frozen=True)
class DeviceArray:
    """Contiguous memory on the GPU. CuPy, pycuda, numba and torch take it, and give the like, through `__cuda_array_interface__`."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    memory: object = field(default=None, repr=False, compare=False)  # it lives as long as somebody holds this

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __getitem__(self, number: int) -> DeviceArray:
        """The part with this number of the first axis, in the same memory."""
        part = DeviceArray(self.address, self.shape[1:], self.dtype)
        return DeviceArray(self.address + number * part.nbytes, part.shape, part.dtype, self.memory)

    def view(self, shape: tuple[int, ...]) -> DeviceArray:
        """The beginning of the same memory, in this shape."""
        return DeviceArray(self.address, shape, self.dtype, self.memory)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"data": (self.address, False), "shape": self.shape, "typestr": self.dtype.str, "strides": None, "version": 3}


class Memory:
    """Nothing but what can be held."""


class Device:
    """The first GPU. `driver` is cuda-bindings' driver module; another object with its functions may stand in for it.

    Raises UserError in one sentence: no cuda-bindings, no driver, a driver that does not start, no GPU."""

    def __init__(self, driver: Any = None) -> None:
        self.driver = driver or import_driver()
        start(self.driver)
        self._device = self._call("cuDeviceGet", 0)
        self.name = self._call("cuDeviceGetName", 256, self._device).split(b"\0")[0].decode()
        attributes = self.driver.CUdevice_attribute
        major = self._call("cuDeviceGetAttribute", attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._device)
        minor = self._call("cuDeviceGetAttribute", attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._device)
        self.capability = 10 * major + minor  # 87 is sm_87
        self.cuda = self._call("cuDriverGetVersion")  # the newest CUDA that the driver takes; 13020 is 13.2
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        self._numbers = count()
        self._release: dict[int, Callable[[], Any]] = {}  # in the order in which it was given
        self._unheld: deque[int] = deque()
        self.own(self, lambda: self.driver.cuDevicePrimaryCtxRelease(self._device))
        self._shared = 0
        self.use()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def use(self) -> None:
        """Make the device's context the calling thread's."""
        self._call("cuCtxSetCurrent", self._context)

    def free_memory(self) -> int:
        """Bytes that nobody holds."""
        return self._call("cuMemGetInfo")[0]

    def array(self, shape: tuple[int, ...], dtype: np.dtype | type) -> DeviceArray:
        """Memory on the GPU. UserError where there is not enough."""
        self._sweep()
        empty = DeviceArray(0, shape, np.dtype(dtype))
        error, address = self.driver.cuMemAlloc(max(1, empty.nbytes))
        if int(error) != 0:
            raise UserError(f"{self.name} has no {empty.nbytes / 1e6:.0f} MB of memory left (CUDA error {int(error)}): end other programs")
        memory = Memory()
        self.own(memory, lambda: self.driver.cuMemFree(address))
        return DeviceArray(int(address), shape, empty.dtype, memory)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Memory of the host that the GPU copies from and to by itself."""
        size = max(1, DeviceArray(0, shape, np.dtype(dtype)).nbytes)
        address = self._call("cuMemHostAlloc", size, 0)
        buffer = (ctypes.c_char * size).from_address(int(address))
        self.own(buffer, lambda: self.driver.cuMemFreeHost(address))
        return np.frombuffer(buffer, np.dtype(dtype), int(np.prod(shape, dtype=np.int64))).reshape(shape)

    def stream(self, owner: object) -> int:
        """A stream of its own, which waits for no other, for as long as somebody holds the owner."""
        stream = self._call("cuStreamCreate", 1)  # CU_STREAM_NON_BLOCKING
        self.own(owner, lambda: self.driver.cuStreamDestroy(stream))
        return int(stream)

    def shared_stream(self) -> int:
        """The one stream of all engines: what one has enqueued is done before what the next does."""
        self._shared = self._shared or self.stream(self)
        return self._shared

    def copy_in(self, array: DeviceArray, host: np.ndarray, stream: int) -> None:
        """Enqueue a copy to the GPU; `host` must be contiguous, and be left alone until the stream has done it."""
        self._call("cuMemcpyHtoDAsync", array.address, host.ctypes.data, array.nbytes, stream)

    def copy_back(self, host: np.ndarray, array: DeviceArray, stream: int) -> None:
        """Enqueue a copy to contiguous memory of the host."""
        self._call("cuMemcpyDtoHAsync", host.ctypes.data, array.address, array.nbytes, stream)

    def copy_out(self, array: DeviceArray, stream: int) -> np.ndarray:
        """The array on the host, when the stream has come so far."""
        host = np.empty(array.shape, array.dtype)
        self.copy_back(host, array, stream)
        self.wait(stream)
        return host

    def copy_within(self, array: DeviceArray, address: int, stream: int) -> None:
        """Enqueue a copy from elsewhere on the GPU."""
        self._call("cuMemcpyDtoDAsync", array.address, address, array.nbytes, stream)

    def copy_last_rows(self, array: DeviceArray, source: DeviceArray, stream: int) -> None:
        """Enqueue a copy of the last rows, as many as both have, of every [H, w] in `source` [..., H, w] to `array` [..., h, w]."""
        (from_rows, width), to_rows = source.shape[-2:], array.shape[-2]
        rows, line = min(from_rows, to_rows), width * source.dtype.itemsize
        copy = self.driver.CUDA_MEMCPY2D()
        copy.srcMemoryType = copy.dstMemoryType = self.driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.srcPitch = source.address + (from_rows - rows) * line, from_rows * line
        copy.dstDevice, copy.dstPitch = array.address + (to_rows - rows) * line, to_rows * line
        copy.WidthInBytes, copy.Height = rows * line, int(np.prod(source.shape[:-2]))
        self._call("cuMemcpy2DAsync", copy, stream)

    def event(self, owner: object) -> Any:
        """A mark that a stream can leave and others wait for, for as long as somebody holds the owner; one that nobody left counts as
        reached."""
        flags = self.driver.CUevent_flags
        event = self._call("cuEventCreate", int(flags.CU_EVENT_DISABLE_TIMING) | int(flags.CU_EVENT_BLOCKING_SYNC))
        self.own(owner, lambda: self.driver.cuEventDestroy(event))
        return event

    def mark(self, event: Any, stream: int) -> None:
        """`event` is where `stream` is now."""
        self._call("cuEventRecord", event, stream)

    def follow(self, stream: int, event: Any) -> None:
        """What `stream` is given from now on is done after `event`."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def wait_for(self, event: Any) -> None:
        """Until `event` is reached."""
        self._call("cuEventSynchronize", event)

    def wait(self, stream: int) -> None:
        """Until the stream has done all it was given."""
        self._call("cuStreamSynchronize", stream)

    def capture(self, stream: int, work: Callable[[], None], owner: object) -> Any:
        """What `work` enqueues on `stream`, as a graph for `launch`, for as long as somebody holds the owner; nothing is done yet."""
        self._sweep()
        self._call("cuStreamBeginCapture", stream, self.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            work()
        finally:
            graph = self._call("cuStreamEndCapture", stream)
        made = self._call("cuGraphInstantiate", graph, 0)
        self._call("cuGraphDestroy", graph)
        self.own(owner, lambda: self.driver.cuGraphExecDestroy(made))
        return made

    def launch(self, graph: Any, stream: int) -> None:
        """Enqueue a captured graph."""
        self._call("cuGraphLaunch", graph, stream)

    def own(self, owner: object, free: Callable[[], Any]) -> None:
        """Have `free` called when memory or a graph is next asked for after nobody holds the owner any more, at the latest by `close`.

        Not at once: that may be in the middle of a capture, which bears no such call."""
        number = next(self._numbers)
        self._release[number] = free
        weakref.finalize(owner, self._unheld.append, number).atexit = False

    def close(self) -> None:
        """Free everything that the device gave; nothing may be running."""
        if self._release:
            self.use()
        while self._release:
            self._release.popitem()[1]()

    def _sweep(self) -> None:
        if self._unheld and self._shared:
            self.wait(self._shared)  # what was let go may have been let go while it was used
        while self._unheld:
            try:
                number = self._unheld.popleft()
            except IndexError:  # another thread sweeps too
                return
            if (free := self._release.pop(number, None)) is not None:
                free()

    def _call(self, function: str, *arguments: Any) -> Any:
        """What a driver function gives besides its status. Raises RuntimeError naming function and status."""
        error, *results = getattr(self.driver, function)(*arguments)
        if int(error) != 0:
            raise RuntimeError(f"{function} failed with CUDA error {int(error)}")
        return (results[0] if len(results) == 1 else results) if results else None


def import_driver() -> Any:
    """cuda-bindings' driver module. UserError without that package."""
    try:
        from cuda.bindings import driver
    except ImportError:
        raise UserError("the GPU is reached through cuda-bindings, which is missing: pip install 'flashlips-edge[cuda]'") from None
    return driver


def start(driver: Any) -> None:
    """Start the driver. UserError where there is none, where it does not start, and without a GPU."""
    try:
        (error,) = driver.cuInit(0)
    except RuntimeError:  # libcuda itself is missing
        raise UserError("there is no NVIDIA driver on this machine: install it, or run on the CPU") from None
    if int(error) != 0:
        raise UserError(f"the NVIDIA driver does not start (CUDA error {int(error)}): check that a GPU is there with nvidia-smi")
