"""ONNX Runtime on the CPU, or on an NVIDIA GPU."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime

from flashlips_edge.errors import UserError


class OnnxRuntimeEngine:
    """One graph, loaded on the CPU, or with `gpu` on the GPU as far as its CUDA provider goes.

    `input_shapes` and `output_shapes` map a tensor's name to its shape; a free axis is named by a string or None.
    `runs` and `seconds` count what the engine has done since it was loaded. Without `fuse_quantised` every Q/DQ pair of a quantised
    graph is computed as it is written, which is slow, and is the only way to run FP8 here.
    Raises UserError when the file is not a graph that ONNX Runtime can load.
    """

    def __init__(self, graph_path: Path, threads: int = 2, fuse_quantised: bool = True, gpu: bool = False):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning pool would take the core that decodes the next frame.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_quantised else "1")
        providers = [*(["CUDAExecutionProvider"] if gpu else []), "CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(str(graph_path), options, providers=providers)
        except Exception as error:  # ONNX Runtime has no common base class for its own
            raise UserError(f"the graph {graph_path} cannot be loaded by ONNX Runtime: {_first_line(error)}") from error
        self.input_shapes = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()}
        self.output_shapes = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_outputs()}
        self.runs = 0
        self.seconds = 0.0

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output of the graph by name, for `inputs` by name. A missing, unknown or misshapen input is a ValueError."""
        if inputs.keys() != self.input_shapes.keys():
            raise ValueError(f"inputs are {sorted(inputs)}, the graph takes {sorted(self.input_shapes)}")
        for name, array in inputs.items():
            expected = self.input_shapes[name]
            if len(array.shape) != len(expected) or any(
                isinstance(want, int) and want != have for want, have in zip(expected, array.shape)
            ):
                raise ValueError(f"input {name} has shape {array.shape}, the graph takes {expected}")
        start = time.perf_counter()
        outputs = self._session.run(list(self.output_shapes), inputs)
        self.seconds += time.perf_counter() - start
        self.runs += 1
        return dict(zip(self.output_shapes, outputs))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
