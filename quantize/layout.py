"""The same arithmetic in the order that ONNX Runtime's 8-bit kernels like. Nothing is approximated.

They work channels-last, and what stands between two of them should, too: a rearrangement that the exporter wrote channels-first costs
more than the convolution beside it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from quantize.folding import share
from quantize.graph import Feed, Probe, attribute, constants, consumers, producers, set_constants, set_nodes, value
from quantize.joining import join


def rearrange(model: onnx.ModelProto, feed: Feed) -> None:
    """Apply every rule below, in place; ``feed`` is one run's inputs."""
    shapes = {name: array.shape for name, array in Probe(model, [o for node in model.graph.node for o in node.output]).run(feed).items()}
    for rule in (_unshuffled_convolution, _shuffled_convolution, _attention_heads):
        rule(model, shapes)
    join(model)
    share(model)


def _unshuffled_convolution(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Pixel unshuffle by b, then a convolution of k x k: a convolution of bk x bk with stride b on the picture itself."""
    made, tensors, taken = producers(model), constants(model), consumers(model)
    replaced: dict[str, NodeProto] = {}
    for conv in model.graph.node:
        chain = _chain_back(conv, ("Reshape", "Transpose", "Reshape"), made, taken)
        if conv.op_type != "Conv" or not chain or attribute(chain[1], "perm") != [0, 1, 3, 5, 2, 4]:
            continue
        source, (rows, columns) = chain[2].input[0], (shapes[chain[2].output[0]][3], shapes[chain[2].output[0]][5])
        if rows != columns or attribute(conv, "strides", [1, 1]) != [1, 1] or attribute(conv, "group", 1) != 1:
            continue
        weight = value(tensors, conv.input[1])  # [out, C * b * b, k, k]
        out, _, high, wide = weight.shape
        unfolded = weight.reshape(out, -1, rows, rows, high, wide).transpose(0, 1, 4, 2, 5, 3)  # [out, C, k, b, k, b]
        set_constants(model, {f"{conv.input[1]}_unfolded": unfolded.reshape(out, -1, high * rows, wide * rows)})
        pads = [rows * pad for pad in attribute(conv, "pads", [0, 0, 0, 0])]  # type: ignore[attr-defined]
        inputs = [source, f"{conv.input[1]}_unfolded", *conv.input[2:]]
        new = helper.make_node("Conv", inputs, conv.output, conv.name, kernel_shape=[high * rows] * 2, strides=[rows] * 2, pads=pads)
        replaced[conv.output[0]] = new
    set_nodes(model, [replaced.get(node.output[0], node) for node in model.graph.node])


def _shuffled_convolution(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """A convolution, then pixel shuffle by b: with its outputs in the order (b, b, C), whole runs of C values move."""
    made, tensors, taken = producers(model), constants(model), consumers(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        conv = made.get(node.input[0]) if node.op_type == "DepthToSpace" else None
        if conv is None or conv.op_type != "Conv" or attribute(node, "mode") != b"CRD" or len(taken[conv.output[0]]) > 1:
            nodes.append(node)
            continue
        block, name = int(attribute(node, "blocksize")), node.output[0]  # type: ignore[call-overload]
        channels, width = shapes[name][1], shapes[conv.output[0]][3]
        order = np.arange(channels * block * block).reshape(channels, block, block).transpose(1, 2, 0).ravel()
        set_constants(model, {tensor: value(tensors, tensor)[order] for tensor in conv.input[1:]})
        apart = np.array([0, -1, width, block, block * channels])  # [B, h, w, b, b * C]
        joined = np.array([0, -1, width * block, channels])
        set_constants(model, {f"{name}_apart": apart, f"{name}_joined": joined})
        nodes += [
            helper.make_node("Transpose", [conv.output[0]], [f"{name}_last"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_last", f"{name}_apart"], [f"{name}_blocks"]),
            helper.make_node("Transpose", [f"{name}_blocks"], [f"{name}_rows"], perm=[0, 1, 3, 2, 4]),  # [B, h, b, w, b * C]
            helper.make_node("Reshape", [f"{name}_rows", f"{name}_joined"], [f"{name}_whole"]),
            helper.make_node("Transpose", [f"{name}_whole"], [name], perm=[0, 3, 1, 2]),
        ]
    set_nodes(model, nodes)


def _attention_heads(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Keys and values [B, K, heads, d, L] to [B, heads, K * L, d]: whole runs of L move, and the product takes in the last swap."""
    taken = consumers(model)
    nodes: list[NodeProto] = []
    swallowed: set[str] = set()
    for node in model.graph.node:
        users = taken.get(node.output[0], [])
        if node.output[0] in swallowed:
            continue
        if node.op_type != "Transpose" or attribute(node, "perm") != [0, 2, 1, 4, 3] or len(users) != 1 or users[0].op_type != "Reshape":
            nodes.append(node)
            continue
        name, (_, heads, count, length, size) = users[0].output[0], shapes[node.output[0]]
        if shapes[name][1:] != (heads, count * length, size):
            nodes.append(node)
            continue
        set_constants(model, {f"{name}_flat": np.array([0, heads, size, count * length])})
        nodes += [
            helper.make_node("Transpose", node.input, [f"{name}_runs"], perm=[0, 2, 3, 1, 4]),
            helper.make_node("Reshape", [f"{name}_runs", f"{name}_flat"], [f"{name}_wide"]),
            helper.make_node("Transpose", [f"{name}_wide"], [name], perm=[0, 1, 3, 2]),
        ]
        swallowed.add(name)
    set_nodes(model, nodes)


def _chain_back(node: NodeProto, kinds: tuple[str, ...], made: dict[str, NodeProto], taken: dict[str, list[NodeProto]]) -> list[NodeProto]:
    """The nodes before ``node``, nearest first, if they are of these kinds and serve nothing else; else none."""
    chain: list[NodeProto] = []
    for kind in kinds:
        before = made.get((chain[-1] if chain else node).input[0]) if node.input else None
        if before is None or before.op_type != kind or len(taken[before.output[0]]) != 1:
            return []
        chain.append(before)
    return chain
