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
from quantize.rows import flatten, separate_heads


def rearrange(model: onnx.ModelProto, feed: Feed) -> None:
    """Apply every rule below, in place; ``feed`` is one run's inputs."""
    for rule in (_unshuffled_convolution, _shuffled_convolution, _attention_heads):
        rule(model, _shapes(model, feed))
    join(model)
    for rule in (separate_heads, flatten):
        rule(model, _shapes(model, feed))
    share(model)


def _shapes(model: onnx.ModelProto, feed: Feed) -> dict[str, tuple[int, ...]]:
    inner = Probe(model, [output for node in model.graph.node for output in node.output]).run(feed)
    return {name: array.shape for name, array in (inner | feed).items()}


def _unshuffled_convolution(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Pixel unshuffle by b, then a convolution of k x k: a convolution of bk x k on the picture with b columns of it side by side as
    channels, which channels-last is the picture itself. Channels come in fours: the kernels copy three bytes no faster than four.

    What a picture in [0, 1] is scaled and shifted by goes into the weights, so that its 256 levels are those of 8 bits."""
    made, tensors, taken = producers(model), constants(model), consumers(model)
    nodes: list[NodeProto] = []
    for conv in model.graph.node:
        chain = _chain_back(conv, ("Reshape", "Transpose", "Reshape"), made, taken)
        plain = attribute(conv, "strides", [1, 1]) == [1, 1] and attribute(conv, "group", 1) == 1 and len(conv.input) == 3
        if conv.op_type != "Conv" or not chain or attribute(chain[1], "perm") != [0, 1, 3, 5, 2, 4] or not plain:
            nodes.append(conv)
            continue
        block, columns = shapes[chain[2].output[0]][3], shapes[chain[2].output[0]][5]
        if block != columns:
            nodes.append(conv)
            continue
        source, scale, zero = _unscaled(chain[2].input[0], made, tensors, taken)
        weight, name = value(tensors, conv.input[1]), conv.output[0]  # [out, C * b * b, k, k]
        out, _, high, wide = weight.shape
        _, channels, rows, columns = shapes[source]
        top, left, bottom, right = (block * pad for pad in attribute(conv, "pads", [0, 0, 0, 0]))  # type: ignore[attr-defined]
        missing = -channels % 4
        unfolded = weight.reshape(out, channels, block, block, high, wide).transpose(0, 3, 1, 4, 2, 5)  # [out, b, C, k, b, k]
        filled = np.pad(unfolded.reshape(out, block, channels, high * block, wide), [(0, 0), (0, 0), (0, missing), (0, 0), (0, 0)])
        constant = {
            conv.input[1]: scale * filled.reshape(out, -1, high * block, wide),
            conv.input[2]: value(tensors, conv.input[2]) - scale * zero * weight.sum((1, 2, 3)),
            f"{name}_border": np.array([0, 0, top, left, 0, missing, bottom, right]),
            f"{name}_beyond": np.array(zero),
            f"{name}_columns": np.array([0, top + rows + bottom, (left + columns + right) // block, block * (channels + missing)]),
        }
        set_constants(model, constant)
        weights, bias, border, beyond, beside = constant
        kernel = {"kernel_shape": [high * block, wide], "strides": [block, 1]}
        nodes += [
            helper.make_node("Pad", [source, border, beyond], [f"{name}_filled"]),
            helper.make_node("Transpose", [f"{name}_filled"], [f"{name}_last"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_last", beside], [f"{name}_beside"]),
            helper.make_node("Transpose", [f"{name}_beside"], [f"{name}_source"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", [f"{name}_source", weights, bias], [name], conv.name, **kernel),
        ]
    set_nodes(model, nodes)


def _unscaled(
    name: str, made: dict[str, NodeProto], tensors: dict[str, onnx.TensorProto], taken: dict[str, list[NodeProto]]
) -> tuple[str, np.float32, np.float32]:
    """The tensor x, a and z of a tensor a (x - z) that is written as x a - a z; of any other itself, 1 and 0."""
    shifted = made.get(name)
    scaled = made.get(shifted.input[0]) if shifted is not None and shifted.op_type == "Sub" else None
    if shifted is None or scaled is None or scaled.op_type != "Mul" or len(taken[name]) + len(taken[scaled.output[0]]) != 2:
        return name, np.float32(1), np.float32(0)
    factors = [value(tensors, each) for each in (scaled.input[1], shifted.input[1]) if each in tensors]
    if [factor.size for factor in factors] != [1, 1]:
        return name, np.float32(1), np.float32(0)
    scale, shift = (np.float32(factor.ravel()[0]) for factor in factors)
    return scaled.input[0], scale, shift / scale


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
