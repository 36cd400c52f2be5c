"""TensorRT and TensorRT-RTX, one adapter: an engine file on the GPU, its memory taken once, every run a CUDA graph.

    device = Device()                                  # before TensorRT: without a driver its runtime takes the process down
    library = load_library("tensorrt")
    with TensorRtEngine(device, library, plan) as engine:
        outputs = engine.run({"image": picture})       # NumPy in, NumPy out
        latent = engine.run_on_device({"image": x})    # anything with __cuda_array_interface__ in, the engine's own memory out

Engines of one device share its stream, so what one leaves on the GPU the next may take at once. A run is: into pinned memory, and
one graph that copies in, computes and copies out; on the device it is a graph that computes.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from flashlips_edge.engines.cuda import Device, DeviceArray
from flashlips_edge.errors import UserError

LIBRARIES = {
    "tensorrt": "on a Jetson it comes with JetPack: make the environment with python3 -m venv --system-site-packages",
    "tensorrt_rtx": "pip install 'flashlips-edge[rtx]'",
}
Taken = TypeVar("Taken")

SHAPES_KEPT = 4  # sets of input shapes that have a context and a graph of their own


def load_library(name: str) -> Any:
    """The module tensorrt or tensorrt_rtx. UserError where it is not installed or does not load."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"the engine needs {name}, which is missing: {LIBRARIES[name]}") from None
    except OSError as error:
        raise UserError(f"{name} does not load ({' '.join(str(error).split())[:200]}): install it again, for this CUDA") from None


def new_log(library: Any) -> Any:
    """A logger for the library that keeps what it is told, without details: `lines`, and of these the `errors`."""

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity != library.ILogger.VERBOSE:
                self.lines.append(f"{getattr(severity, 'name', severity)}: {message}")
            if severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Log()


@dataclass
class _Ready:
    """One set of input shapes: its context, its graph, and views of the buffers in these shapes."""

    context: Any
    arrays: dict[str, DeviceArray]
    pinned: dict[str, np.ndarray]
    whole: Any = None  # the graph with copies on both sides
    compute: Any = None  # and without
    ran: bool = False


class TensorRtEngine:
    """One engine file, loaded on `device`.

    `input_shapes` and `output_shapes` map a tensor's name to its shape; a free axis is a string. `runs` and `seconds` count what it has
    done. Any thread may call it, one at a time is served. Raises UserError where the library does not take the file.
    """

    def __init__(self, device: Device, library: Any, plan: bytes, name: str = "the engine") -> None:
        self.device, self._library = device, library
        self._lock = threading.Lock()
        self._log = new_log(library)
        self._runtime = library.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise UserError(f"{name} cannot be loaded by {library.__name__}: {(self._log.errors or ['it gives no reason'])[0][:300]}")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == library.TensorIOMode.INPUT]
        shapes = {n: tuple("free" if axis < 0 else int(axis) for axis in self._engine.get_tensor_shape(n)) for n in names}
        self.input_shapes = {n: shapes[n] for n in inputs}
        self.output_shapes = {n: shapes[n] for n in names if n not in inputs}
        self._dtypes = {n: np.dtype(library.nptype(self._engine.get_tensor_dtype(n))) for n in names}
        self._ranges = {n: [tuple(each) for each in self._engine.get_tensor_profile_shape(n, 0)] for n in inputs}
        self._stream, self._recorder = device.shared_stream(), device.stream(self)  # nobody else's work gets into a graph
        self._take_memory(inputs)
        self._ready: OrderedDict[tuple[tuple[int, ...], ...], _Ready] = OrderedDict()
        self.runs = 0
        self.seconds = 0.0

    def __enter__(self) -> TensorRtEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name, for `inputs` by name. A missing, unknown or misshapen input is a ValueError; more frames than the engine
        takes at once go through it one part after another."""
        frames = max((len(array) for array in inputs.values()), default=0)
        if frames > self.at_once:
            starts = range(0, frames, self.at_once)
            parts = [self.run({name: array[i : i + self.at_once] for name, array in inputs.items()}) for i in starts]
            return {name: np.concatenate([part[name] for part in parts]) for name in self.output_shapes}
        with self._lock:
            start = time.perf_counter()
            self.device.use()
            ready = self._prepare(inputs)
            for name, array in inputs.items():
                np.copyto(ready.pinned[name], array, casting="same_kind")
            if not ready.ran:
                self._whole(ready, self._stream)  # the first run of a context may allocate, which a graph cannot hold
                ready.ran = True
            else:
                ready.whole = ready.whole or self.device.capture(self._recorder, lambda: self._whole(ready, self._recorder), ready)
                self.device.launch(ready.whole, self._stream)
            self.device.wait(self._stream)
            outputs = {name: ready.pinned[name].copy() for name in self.output_shapes}
            self._count(start)
            return outputs

    def run_on_device(self, inputs: dict[str, Any]) -> dict[str, DeviceArray]:
        """The same without the host: inputs are arrays on the GPU, outputs the engine's own memory, valid until its next run.

        Nothing is waited for; who reads an output elsewhere than in an engine of this device waits with `device.wait` first.
        """
        interfaces = {name: _interface(name, value) for name, value in inputs.items()}

        def fill(memory: dict[str, DeviceArray]) -> None:
            for name, each in interfaces.items():
                if each.get("stream"):
                    self.device.wait(each["stream"])
                self.device.copy_within(memory[name], each["data"][0], self._stream)

        shapes = {name: _Shaped(tuple(each["shape"]), np.dtype(each["typestr"])) for name, each in interfaces.items()}
        return self.enqueue(shapes, fill, lambda outputs: outputs)

    def enqueue(
        self,
        inputs: dict[str, Any],
        fill: Callable[[dict[str, DeviceArray]], None],
        take: Callable[[dict[str, DeviceArray]], Taken],
    ) -> Taken:
        """A run for whom everything is on the GPU: `fill` writes the engine's own memory for `inputs`, of which only shapes and types are
        looked at, and `take` reads its outputs; both only enqueue, on `device.shared_stream()`. Gives what `take` gives, at once."""
        with self._lock:
            start = time.perf_counter()
            self.device.use()
            ready = self._prepare(inputs)
            fill({name: ready.arrays[name] for name in self.input_shapes})
            if not ready.ran:
                self._execute(ready, self._stream)
                ready.ran = True
            else:
                ready.compute = ready.compute or self.device.capture(self._recorder, lambda: self._execute(ready, self._recorder), ready)
                self.device.launch(ready.compute, self._stream)
            taken = take({name: ready.arrays[name] for name in self.output_shapes})
            self._count(start)
            return taken

    @property
    def at_once(self) -> int:
        """Frames that one run takes at most."""
        return min(ranges[2][0] for ranges in self._ranges.values())

    @property
    def largest(self) -> dict[str, tuple[int, ...]]:
        """The largest shape of each tensor."""
        return {name: array.shape for name, array in self._arrays.items()}

    def layers(self) -> str:
        """What the library's inspector says of the engine's layers, JSON."""
        inspector = self._engine.create_engine_inspector()
        return inspector.get_engine_information(self._library.LayerInformationFormat.JSON)

    def close(self) -> None:
        """Give up contexts, engine and memory. Who merely lets go of the engine gives up the same."""
        with self._lock:
            self._ready.clear()
            self._arrays.clear()
            self._pinned.clear()
            self._engine = self._runtime = None

    def _take_memory(self, inputs: list[str]) -> None:
        """Buffers on both sides for the largest shapes there can be."""
        context = self._new_context()
        most = {name: self._ranges[name][2] for name in inputs}
        for name, shape in most.items():
            context.set_input_shape(name, shape)
        most |= {name: tuple(context.get_tensor_shape(name)) for name in self.output_shapes}
        self._arrays = {name: self.device.array(shape, self._dtypes[name]) for name, shape in most.items()}
        self._pinned = {name: self.device.pinned(shape, self._dtypes[name]).reshape(-1) for name, shape in most.items()}

    def _prepare(self, inputs: dict[str, Any]) -> _Ready:
        """What belongs to the shapes of these inputs; made when they are first seen."""
        if inputs.keys() != self.input_shapes.keys():
            raise ValueError(f"inputs are {sorted(inputs)}, the graph takes {sorted(self.input_shapes)}")
        for name, array in inputs.items():
            least, _, most = self._ranges[name]
            fits = len(array.shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, array.shape, most))
            if not fits or array.dtype != self._dtypes[name]:
                wanted = f"{self._dtypes[name]} from {least} to {most}"
                raise ValueError(f"input {name} is {array.dtype} of shape {array.shape}, the engine takes {wanted}")
        key = tuple(tuple(inputs[name].shape) for name in self.input_shapes)
        if key not in self._ready:
            if len(self._ready) == SHAPES_KEPT:
                self.device.wait(self._stream)  # it may still be running
                self._ready.popitem(last=False)
            self._ready[key] = self._new(dict(zip(self.input_shapes, key)))
        self._ready.move_to_end(key)
        return self._ready[key]

    def _new(self, shapes: dict[str, tuple[int, ...]]) -> _Ready:
        context = self._new_context()
        for name, shape in shapes.items():
            context.set_input_shape(name, shape)
        shapes = shapes | {name: tuple(context.get_tensor_shape(name)) for name in self.output_shapes}
        arrays = {name: self._arrays[name].view(shape) for name, shape in shapes.items()}
        for name, array in arrays.items():
            context.set_tensor_address(name, array.address)
        pinned = {name: self._pinned[name][: int(np.prod(shape))].reshape(shape) for name, shape in shapes.items()}
        return _Ready(context, arrays, pinned)

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise UserError(f"{self._library.__name__} cannot run the engine: {(self._log.errors or ['no memory is left'])[0][:300]}")
        return context

    def _whole(self, ready: _Ready, stream: int) -> None:
        """Enqueue one run from pinned memory to pinned memory."""
        for name in self.input_shapes:
            self.device.copy_in(ready.arrays[name], ready.pinned[name], stream)
        self._execute(ready, stream)
        for name in self.output_shapes:
            self.device.copy_back(ready.pinned[name], ready.arrays[name], stream)

    def _execute(self, ready: _Ready, stream: int) -> None:
        if not ready.context.execute_async_v3(stream):
            raise RuntimeError(f"{self._library.__name__} did not run the engine: {(self._log.errors or ['it gives no reason'])[-1][:300]}")

    def _count(self, start: float) -> None:
        self.seconds += time.perf_counter() - start
        self.runs += 1


@dataclass(frozen=True)
class _Shaped:
    """What is checked of an input."""

    shape: tuple[int, ...]
    dtype: np.dtype


def _interface(name: str, value: Any) -> dict[str, Any]:
    found = getattr(value, "__cuda_array_interface__", None)
    if found is None:
        raise ValueError(f"input {name} must be an array on the GPU, not {type(value).__name__}")
    strides, expected = found.get("strides"), np.dtype(found["typestr"]).itemsize
    for extent, stride in reversed(list(zip(found["shape"], strides or ()))):
        if stride != expected and extent != 1:
            raise ValueError(f"input {name} must be contiguous")
        expected *= extent
    return found
