"""What of a graph can go to low precision: its layers, one for each weight."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from flashlips_edge.evaluation import flops
from quantize.graph import HEAVY, Feed, constants, copy

LEAST_SHARE = 0.002  # of the graph's operations: below it, converting costs more than is saved


@dataclass(frozen=True)
class Layer:
    """One choice of the policy: the nodes that share a weight. ``flops`` are of one run at batch 1, ``weights`` the weight's values."""

    graph: str
    name: str
    nodes: tuple[str, ...]  # their first outputs
    flops: int
    weights: int


def name_of(weight: str, node: onnx.NodeProto) -> str:
    """A layer's name: the weight's, or where the exporter has only numbered it, the path of its first node."""
    return weight.removesuffix(".weight") if "::" not in weight else node.name.strip("/").removesuffix(f"/{node.op_type}").replace("/", ".")


def layers_of(graph: str, model: onnx.ModelProto, feed: Feed) -> tuple[list[Layer], int]:
    """The layers of a graph in their order, and the operations of the whole graph; ``feed`` is one run's inputs at batch 1."""
    counted = flops.by_node(copy(model), feed)
    total, tensors = sum(counted.values()), constants(model)
    sizes = {tensor.name: _size(tensor) for tensor in tensors.values()}
    shared: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in HEAVY and node.input[1] in tensors:
            shared.setdefault(node.input[1], []).append(node)
    layers = []
    for weight, nodes in shared.items():
        operations = sum(counted[node.output[0]] for node in nodes)
        if operations >= LEAST_SHARE * total:
            outputs = tuple(node.output[0] for node in nodes)
            layers.append(Layer(graph, name_of(weight, nodes[0]), outputs, operations, sizes[weight]))
    return layers, total


def _size(tensor: onnx.TensorProto) -> int:
    size = 1
    for extent in tensor.dims:
        size *= extent
    return size
