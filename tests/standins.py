"""Stand-ins for cuda-bindings' driver and for the module tensorrt, for machines without a GPU.

The GPU's memory is the host's and a stream is a list of work, done as late as its waits allow, so that copies, captured graphs, events and
addresses are real and numbers come out only where the order is right.
An engine file is the ONNX file with a header, computed by ONNX Runtime. What is done in the wrong order, outside of memory that was given
or to what was freed is a failure here. That TensorRT itself compiles the graphs is TensorRT-RTX's to show.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

HEADER = b"a stand-in's engine\n"
WORK: dict[int, list[Callable[[], None]]] = {}  # of each stream: what was enqueued and not done yet
RECORDING: dict[int, list[Callable[[], None]]] = {}  # of each stream that is captured: what the graph holds so far
_numbers = count(1)
_one_at_a_time = threading.RLock()


def enqueue(stream: int, work: Callable[[], None]) -> None:
    """Onto the stream, or into the graph that is captured from it. It is done as late as it may be: when somebody waits for it."""
    RECORDING.get(stream, WORK[stream]).append(work)


def carry_out(stream: int, until: int | None = None) -> None:
    """What the stream holds, or its first entries up to the mark with this number."""
    with _one_at_a_time:
        while WORK[stream]:
            work = WORK[stream].pop(0)
            work()
            if until is not None and getattr(work, "mark", None) == until:
                return


class Mark:
    """Where a stream was when an event was recorded."""

    def __init__(self, event: int, stream: int) -> None:
        self.stream, self.mark = stream, next(_numbers)
        self.reached = False

    def __call__(self) -> None:
        self.reached = True


class Driver:
    """cuda.bindings.driver with one GPU. `count` says how often each function was called; `held` is what was given and not freed."""

    class CUdevice_attribute:  # noqa: N801
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = "major"
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = "minor"

    class CUmemorytype:
        CU_MEMORYTYPE_DEVICE = 2

    class CUevent_flags:  # noqa: N801
        CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING = 1, 2

    CUDA_MEMCPY2D = SimpleNamespace

    class CUstreamCaptureMode:
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

    def __init__(self, capability: int = 87, name: str = "Orin", status: int = 0, memory: int = 1 << 30) -> None:
        self.capability, self.name, self.status, self.memory = capability, name, status, memory
        self.held: dict[int, Any] = {}
        self.count: dict[str, int] = {}
        self.marks: dict[int, Mark] = {}  # the newest of each event

    def __getattribute__(self, function: str) -> Any:
        if function.startswith("cu"):
            counts = object.__getattribute__(self, "count")
            counts[function] = counts.get(function, 0) + 1
        return object.__getattribute__(self, function)

    def cuInit(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return (self.status,)

    def cuDeviceGet(self, number: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, 0

    def cuDeviceGetName(self, size: int, device: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, self.name.encode().ljust(size, b"\0")

    def cuDeviceGetAttribute(self, attribute: str, device: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, self.capability // 10 if attribute == "major" else self.capability % 10

    def cuDriverGetVersion(self) -> tuple[Any, ...]:  # noqa: N802
        return 0, 12060

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, 77

    def cuDevicePrimaryCtxRelease(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuCtxSetCurrent(self, context: int) -> tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuMemGetInfo(self) -> tuple[Any, ...]:  # noqa: N802
        return 0, self.memory, self.memory

    def cuMemAlloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        if size > self.memory:
            return 2, None
        self.memory -= size
        buffer = np.full(size, 0xFF, np.uint8)  # NaN, so that what nobody wrote shows
        self.held[buffer.ctypes.data] = buffer
        return 0, buffer.ctypes.data

    def cuMemFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        for stream in list(WORK):  # it waits for the whole GPU
            carry_out(stream)
        self.memory += len(self.held.pop(address))
        return (0,)

    def cuMemHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        buffer = np.full(size, 0xFF, np.uint8)
        self.held[buffer.ctypes.data] = buffer
        return 0, buffer.ctypes.data

    def cuMemFreeHost(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        del self.held[address]
        return (0,)

    def cuStreamCreate(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        stream = self._new("stream")
        WORK[stream] = []
        return 0, stream

    def cuStreamDestroy(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        del self.held[stream], WORK[stream]
        return (0,)

    def cuStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert stream not in RECORDING, "a stream that is captured cannot be waited for"
        carry_out(stream)
        return (0,)

    def cuEventCreate(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, self._new("event")

    def cuEventDestroy(self, event: int) -> tuple[Any, ...]:  # noqa: N802
        del self.held[event]
        self.marks.pop(event, None)
        return (0,)

    def cuEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert self.held[event] == "event"
        self.marks[event] = Mark(event, stream)
        enqueue(stream, self.marks[event])
        return (0,)

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        if (mark := self.marks.get(event)) is not None:
            enqueue(stream, lambda: None if mark.reached else carry_out(mark.stream, mark.mark))
        return (0,)

    def cuEventSynchronize(self, event: int) -> tuple[Any, ...]:  # noqa: N802
        if (mark := self.marks.get(event)) is not None and not mark.reached:
            carry_out(mark.stream, mark.mark)
        return (0,)

    def _copy(self, to: int, source: int, size: int, stream: int) -> tuple[Any, ...]:
        assert self.held[stream] == "stream"
        enqueue(stream, lambda: ctypes.memmove(self._inside(to, size), self._inside(source, size), size))
        return (0,)

    cuMemcpyHtoDAsync = cuMemcpyDtoHAsync = cuMemcpyDtoDAsync = _copy  # noqa: N815

    def cuMemcpy2DAsync(self, copy: Any, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert copy.WidthInBytes <= min(copy.srcPitch, copy.dstPitch)
        for row in range(copy.Height):
            self._copy(copy.dstDevice + row * copy.dstPitch, copy.srcDevice + row * copy.srcPitch, copy.WidthInBytes, stream)
        return (0,)

    def _inside(self, address: int, size: int) -> int:
        """The address, if memory that was given holds it; memory that a test made itself is its own affair."""
        for start, buffer in self.held.items():
            if isinstance(buffer, np.ndarray) and start <= address < start + len(buffer):
                assert address + size <= start + len(buffer), "a copy runs over the end of its memory"
        return address

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:  # noqa: N802
        RECORDING[stream] = []
        return (0,)

    def cuStreamEndCapture(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, RECORDING.pop(stream)

    def cuGraphInstantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[Any, ...]:  # noqa: N802
        return 0, self._new(graph)

    def cuGraphDestroy(self, graph: Any) -> tuple[Any, ...]:  # noqa: N802
        return (0,)

    def cuGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        for work in self.held[graph]:
            enqueue(stream, work)
        return (0,)

    def cuGraphExecDestroy(self, graph: int) -> tuple[Any, ...]:  # noqa: N802
        del self.held[graph]
        return (0,)

    def _new(self, value: Any) -> int:
        number = next(_numbers)
        self.held[number] = value
        return number


class Mode(IntEnum):
    INPUT = 0
    OUTPUT = 1


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    VERBOSE = 4


class Logger:
    INTERNAL_ERROR, ERROR, WARNING, VERBOSE = Severity

    def __init__(self) -> None:
        pass


class Context:
    """An execution context: shapes and addresses first, then runs."""

    def __init__(self, session: Any, spoil: float) -> None:
        self._session, self._spoil = session, spoil
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._outputs: dict[tuple[tuple[int, ...], ...], dict[str, tuple[int, ...]]] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        key = tuple(self._shapes.values())
        if key not in self._outputs:
            zeros = {tensor: np.zeros(shape, np.float32) for tensor, shape in self._shapes.items()}
            names = [tensor.name for tensor in self._session.get_outputs()]
            self._outputs[key] = {n: array.shape for n, array in zip(names, self._session.run(names, zeros))}
        return self._outputs[key][name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        names = [tensor.name for tensor in self._session.get_outputs()]
        if not {*self._shapes, *names} <= self._addresses.keys():
            return False
        shapes = {name: self.get_tensor_shape(name) for name in (*self._shapes, *names)}
        addresses = dict(self._addresses)

        def work() -> None:
            arrays = {name: _at(addresses[name], shape) for name, shape in shapes.items()}
            for name, result in zip(names, self._session.run(names, {name: arrays[name] for name in self._shapes})):
                arrays[name][...] = result * (1 + self._spoil)

        enqueue(stream, work)
        return True


def _at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape))
    return np.frombuffer((ctypes.c_float * size).from_address(address), np.float32).reshape(shape)


class Engine:
    def __init__(self, plan: bytes, library: ModuleType) -> None:
        about, _, graph = plan.removeprefix(HEADER).partition(b"\n")
        self._about = json.loads(about)
        self._library = library
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self._inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        self._outputs = {tensor.name: tensor for tensor in self._session.get_outputs()}
        self._graph = graph

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, number: int) -> str:
        return [*self._inputs, *self._outputs][number]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in self._inputs else Mode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else -1 for axis in {**self._inputs, **self._outputs}[name].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._about["profile"][name]]

    def create_execution_context(self) -> Context:
        return Context(self._session, self._library.spoil)

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": self._layers()}))

    def _layers(self) -> list[Any]:
        if not self._about["detailed"]:
            return [node.name for node in onnx.load_from_string(self._graph).graph.node]
        model = onnx.load_from_string(self._graph)
        kinds = {tensor.name: {1: "FP32", 10: "FP16", 3: "Int8"}.get(tensor.data_type, "FP32") for tensor in model.graph.initializer}
        return [
            {
                "Name": node.name,
                "Inputs": [
                    {"Name": name, "Format/Datatype": f"Row major linear {self._library.built_in or kind} format"} for name in node.input
                ],
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
            for node in model.graph.node
            for kind in [next((kinds[name] for name in node.input if name in kinds), "FP32")]
        ]


def tensorrt(version: str = "10.3.0", name: str = "tensorrt") -> Any:
    """A module that works like tensorrt. `spoil` adds an error to all results, `built_in` makes all layers be of that type, `refuses`
    makes the parser refuse every graph."""
    library: Any = ModuleType(name)
    library.__version__ = version
    library.spoil, library.built_in, library.refuses = 0.0, "", ""
    library.ILogger = Logger
    library.TensorIOMode = Mode
    library.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    library.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    library.MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    library.LayerInformationFormat = SimpleNamespace(JSON="json")
    library.ComputeCapability = SimpleNamespace(SM86=86, SM89=89, SM120=120)
    library.nptype = np.dtype
    library.timings_given = []

    class Network:
        image = b""

    class Parser:
        def __init__(self, network: Network, log: Any) -> None:
            self._network = network

        def parse(self, graph: bytes) -> bool:
            self._network.image = graph
            return not library.refuses

        num_errors = 1

        def get_error(self, number: int) -> Any:
            return SimpleNamespace(desc=lambda: library.refuses)

    class Config:
        profiling_verbosity = ""
        num_compute_capabilities = 1

        def __init__(self) -> None:
            self.profiles: list[Any] = []
            self.workspace = 0

        def add_optimization_profile(self, profile: Any) -> None:
            self.profiles.append(profile)

        def set_memory_pool_limit(self, kind: int, size: int) -> None:
            self.workspace = size

        def set_compute_capability(self, capability: int, place: int) -> None:
            assert place < self.num_compute_capabilities

        def create_timing_cache(self, given: bytes) -> Any:
            library.timings_given.append(given)
            return SimpleNamespace(serialize=lambda: given + b"timed ")

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
            pass

    class Profile(dict):
        def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
            self[name] = [least, usual, most]

    class Builder:
        def __init__(self, log: Any) -> None:
            self._log = log

        def create_network(self, flags: int) -> Network:
            assert flags == 1 << library.NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
            self._log.log(Severity.WARNING, "built by a stand-in")
            about = {"profile": config.profiles[0], "detailed": config.profiling_verbosity == "detailed"}
            return HEADER + json.dumps(about).encode() + b"\n" + network.image

    class Runtime:
        def __init__(self, log: Any) -> None:
            self._log = log

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if not plan.startswith(HEADER):
                self._log.log(Severity.ERROR, "Magic tag does not match")
                return None
            return Engine(plan, library)

    library.OnnxParser, library.Builder, library.Runtime = Parser, Builder, Runtime
    return library
