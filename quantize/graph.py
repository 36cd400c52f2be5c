"""Small things that are done to ONNX graphs: look up, run for inner tensors, drop what nothing needs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, numpy_helper

from flashlips_edge.errors import UserError

Feed = dict[str, np.ndarray]  # one run's inputs by name
HEAVY = ("Conv", "MatMul", "Gemm")  # the operations that low precision speeds up


def load(path: str, name: str) -> onnx.ModelProto:
    """The graph of a file. UserError where it holds an operation that is not standard ONNX: nobody could say what it does."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            domain = f" of {node.domain}" if node.domain else ""
            raise UserError(
                f"graph {name}: the operation {node.op_type}{domain} is unknown; only standard ONNX operations can be quantised"
            )
    return model


def has_free_axes(model: onnx.ModelProto) -> bool:
    """Whether any axis but the batch has no size of its own."""
    return any(not axis.dim_value for entry in model.graph.input for axis in entry.type.tensor_type.shape.dim[1:])


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initialisers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def value(tensors: dict[str, onnx.TensorProto], name: str) -> np.ndarray:
    """An initialiser as an array that may be written to."""
    return np.array(numpy_helper.to_array(tensors[name]))


def set_constants(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> None:
    """Add initialisers, or give those that are there another value."""
    present = constants(model)
    for name, array in values.items():
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        if name in present:
            present[name].CopyFrom(tensor)
        else:
            model.graph.initializer.append(tensor)


def producers(model: onnx.ModelProto) -> dict[str, NodeProto]:
    """The node that makes each tensor."""
    return {output: node for node in model.graph.node for output in node.output}


def consumers(model: onnx.ModelProto) -> dict[str, list[NodeProto]]:
    """The nodes that take each tensor."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """An attribute's value."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def set_nodes(model: onnx.ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Replace the graph's nodes and drop nodes and initialisers that no output needs."""
    kept, needed = [], {output.name for output in model.graph.output}
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(tensors)


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of its own."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


class Probe:
    """Runs a graph for inner tensors too, as it is written: nothing fused, nothing reordered."""

    def __init__(self, model: onnx.ModelProto, names: list[str], threads: int = 1) -> None:
        probed = copy(model)
        given = {entry.name for entry in probed.graph.input}
        present = {output.name for output in probed.graph.output}
        self._names = [name for name in names if name not in given]
        self._given = [name for name in names if name in given]
        probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._names if name not in present)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """The named tensors of one run."""
        inner = self._session.run(self._names, feed) if self._names else []
        return dict(zip(self._names, inner)) | {name: feed[name] for name in self._given}
