"""Floating-point operations of an ONNX graph: 2 per multiply-add of its convolutions, products and recurrent cells.

Norms, activations and other elementwise operations are left out, as is usual."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM")
REFUSED = ("Attention", "Einsum", "If", "Loop", "QLinearConv", "QLinearMatMul", "RNN", "Scan")
GATES = {"GRU": 3, "LSTM": 4}


def count(path: str | Path, inputs: dict[str, np.ndarray]) -> int:
    """Operations of one run of the graph at `path` with these inputs.

    The graph is run once, so dynamic shapes are the real ones. ValueError where it holds a heavy operation that is not counted."""
    try:
        return sum(by_node(onnx.load(str(path)), inputs).values())
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def by_node(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, int]:
    """The same for each node that is counted, by the name of its first output. The model is left with more outputs."""
    nodes = [node for node in model.graph.node if node.op_type in COUNTED]
    unknown = sorted({node.op_type for node in model.graph.node if node.op_type in REFUSED})
    if unknown:
        raise ValueError(f"holds {', '.join(unknown)}: counted are {', '.join(COUNTED)}.")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes |= _shapes_of_a_run(model, [name for node in nodes for name in (*node.input, *node.output[:1])], shapes, inputs)
    return {node.output[0]: _operations(node, [shapes.get(name, ()) for name in node.input], shapes[node.output[0]]) for node in nodes}


def _shapes_of_a_run(
    model: onnx.ModelProto, names: list[str], known: dict[str, tuple[int, ...]], inputs: dict[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the named tensors; all of them become outputs of the graph for one run."""
    shapes = {name: array.shape for name, array in inputs.items()}
    wanted = sorted({name for name in names if name and name not in known and name not in shapes})
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in present)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run(wanted, inputs) if wanted else []
    return shapes | {name: result.shape for name, result in zip(wanted, results)}


def _operations(node: onnx.NodeProto, shapes: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    if node.op_type == "Conv":  # weight [out, in / groups, *kernel]
        return 2 * prod(output) * prod(shapes[1][1:])
    if node.op_type == "ConvTranspose":  # weight [in, out / groups, *kernel]
        return 2 * prod(shapes[0]) * prod(shapes[1][1:])
    if node.op_type == "MatMul":
        return 2 * prod(output) * shapes[0][-1]
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return 2 * prod(output) * shapes[0][0 if transposed else 1]
    steps, batch, width = shapes[0]  # GRU, LSTM: [T, B, in]; recurrence [directions, gates * H, H]
    directions, _, hidden = shapes[2]
    return 2 * steps * batch * directions * GATES[node.op_type] * hidden * (width + hidden)
