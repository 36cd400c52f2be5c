"""ONNX Runtime on the CPU, or on an NVIDIA GPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from flashlips_edge.errors import UserError


class OnnxRuntimeEngine:
    """One graph, loaded on the CPU, or with `gpu` on the GPU as far as its CUDA provider goes.

    `input_shapes` and `output_shapes` map a tensor's name to its shape; a free axis is named by a string or None.
    `runs` and `seconds` count what the engine has done since it was loaded. Without `fuse_quantised` every Q/DQ pair of a quantised
    graph is computed as it is written, which is slow, and is the only way to run FP8 here.
    `image` is what the file held when it was checked. Raises UserError when it is not a graph that ONNX Runtime can load.
    """

    def __init__(self, graph_path: Path, threads: int = 2, fuse_quantised: bool = True, gpu: bool = False, image: bytes | None = None):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning pool would take the core that decodes the next frame.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_quantised else "1")
        providers = [*(["CUDAExecutionProvider"] if gpu else []), "CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(image or str(graph_path), options, providers=providers)
        except Exception as error:  # ONNX Runtime has no common base class for its own
            raise UserError(f"the graph {graph_path} cannot be loaded by ONNX Runtime: {_first_line(error)}") from error
        self._place = "cuda" if gpu and "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        self.input_shapes = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()}
        self.output_shapes = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_outputs()}
        self.runs = 0
        self.seconds = 0.0

    def run_on_device(self, inputs: dict[str, Any]) -> dict[str, OnDevice]:
        """The same without the host: anything with `__cuda_array_interface__` in, arrays of the session's own out, which have it too.
        An array that another stream still writes is the caller's to wait for; what comes out is finished."""
        interfaces = {name: value.__cuda_array_interface__ for name, value in inputs.items()}
        self._check({name: tuple(each["shape"]) for name, each in interfaces.items()})
        start = time.perf_counter()
        binding = self._session.io_binding()
        for name, each in interfaces.items():
            binding.bind_input(name, self._place, 0, np.dtype(each["typestr"]), list(each["shape"]), each["data"][0])
        for name in self.output_shapes:
            binding.bind_output(name, self._place)
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        self._count(start)
        return {name: OnDevice(value) for name, value in zip(self.output_shapes, binding.get_outputs())}

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output of the graph by name, for `inputs` by name. A missing, unknown or misshapen input is a ValueError."""
        self._check({name: array.shape for name, array in inputs.items()})
        start = time.perf_counter()
        outputs = self._session.run(list(self.output_shapes), inputs)
        self._count(start)
        return dict(zip(self.output_shapes, outputs))

    def _check(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if shapes.keys() != self.input_shapes.keys():
            raise ValueError(f"inputs are {sorted(shapes)}, the graph takes {sorted(self.input_shapes)}")
        for name, shape in shapes.items():
            expected = self.input_shapes[name]
            if len(shape) != len(expected) or any(isinstance(want, int) and want != have for want, have in zip(expected, shape)):
                raise ValueError(f"input {name} has shape {shape}, the graph takes {expected}")

    def _count(self, start: float) -> None:
        self.seconds += time.perf_counter() - start
        self.runs += 1


class OnDevice:
    """An output where the session left it."""

    def __init__(self, value: Any) -> None:
        self._value = value  # holds the memory

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        typestr = "<f4" if self._value.data_type() == "tensor(float)" else "<f2"
        return {
            "data": (self._value.data_ptr(), False),
            "shape": tuple(self._value.shape()),
            "typestr": typestr,
            "strides": None,
            "version": 3,
        }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
