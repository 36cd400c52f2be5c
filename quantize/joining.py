"""Products of one input become one product, and what is done to its parts goes into its weights. Exact, and fewer, larger steps.

A conditioned network scales and shifts each of its norms by its own product of the one condition: x (1 + s) + t, after the norm's own
gain and offset (x g + o). All of s, t, g, o and the one are linear in the condition: a single product gives g (1 + s) and o (1 + s) + t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper

from quantize.graph import attribute, constants, consumers, producers, set_constants, set_nodes, value


@dataclass
class _Product:
    """weight [in, out] and bias [out] of a MatMul with its Add, or of a Gemm; ``output`` is behind the bias."""

    nodes: list[NodeProto]
    weight: np.ndarray
    bias: np.ndarray
    output: str


@dataclass
class _Part:
    """Columns ``start`` to ``end`` of the joined product; ``name`` is the tensor that they become. ``is_map``: as [B, C, 1, 1]."""

    start: int
    end: int
    name: str
    is_map: bool = False


class _Joiner:
    """The products of one input, their weights side by side."""

    def __init__(self, model: onnx.ModelProto, products: list[_Product]) -> None:
        self._model, self._products = model, products
        self._tensors, self._made, self._taken = constants(model), producers(model), consumers(model)
        self.weight = np.concatenate([product.weight for product in products], axis=1)
        self.bias = np.concatenate([product.bias for product in products])
        self.gone: set[str] = {output for product in products for node in product.nodes for output in node.output}
        self.renamed: dict[str, str] = {}
        self.parts = self._find_parts()
        for part in self.parts:
            self._take_in_constant(part)
        for part in self.parts:
            self._take_in_norm(part)

    def nodes(self) -> list[NodeProto]:
        """The joined product and the Split that gives its parts their names."""
        name = self._products[0].output
        tall = all(part.is_map for part in self.parts)
        set_constants(self._model, {f"{name}_weight": self.weight, f"{name}_bias": self.bias})
        set_constants(self._model, {f"{name}_sizes": np.array([part.end - part.start for part in self.parts])})
        result = [
            helper.make_node("MatMul", [self._products[0].nodes[0].input[0], f"{name}_weight"], [f"{name}_product"], f"{name}_product"),
            helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [f"{name}_joined"]),
        ]
        if tall:
            set_constants(self._model, {f"{name}_map": np.array([0, -1, 1, 1])})
            result.append(helper.make_node("Reshape", [f"{name}_joined", f"{name}_map"], [f"{name}_tall"]))
        source, axis = (f"{name}_tall", 1) if tall else (f"{name}_joined", -1)
        return [*result, helper.make_node("Split", [source, f"{name}_sizes"], [part.name for part in self.parts], axis=axis)]

    def _find_parts(self) -> list[_Part]:
        """What each product is cut into by Slices, and as maps by Unsqueezes; a product that is not cut is one part."""
        parts, offset = [], 0
        for product in self._products:
            width = product.weight.shape[1]
            cuts = sorted(filter(None, (self._cut(node) for node in self._taken.get(product.output, []))), key=lambda cut: cut[:2])
            edges = [0, *(end for _, end, _ in cuts)]
            whole = len(cuts) == len(self._taken.get(product.output, [])) and [a for a, _, _ in cuts] == edges[:-1] and edges[-1] == width
            self.gone.update(name for _, _, name in cuts if whole)
            found = (
                [_Part(offset + a, offset + b, name) for a, b, name in cuts] if whole else [_Part(offset, offset + width, product.output)]
            )
            parts += found
            offset += width
        maps = [self._as_map(part.name) for part in parts]
        if all(maps):
            for part, names in zip(parts, maps):
                part.name, part.is_map = names[-1], True
                self.gone.update(names)
        return parts

    def _cut(self, node: NodeProto) -> tuple[int, int, str] | None:
        """First and last column (exclusive) and name of a Slice of the last axis."""
        if node.op_type != "Slice" or any(name not in self._tensors for name in node.input[1:]):
            return None
        start, end, axis, *step = (value(self._tensors, name).ravel().tolist() for name in node.input[1:])
        rank_end = axis == [-1] or axis == [1]
        return (start[0], end[0], node.output[0]) if rank_end and step in ([], [[1]]) and start[0] >= 0 else None

    def _as_map(self, name: str) -> list[str]:
        """The tensors of two Unsqueezes, of axes 2 and 3, after a part [B, C]; none where there is anything else."""
        names: list[str] = []
        for axis in (2, 3):
            users = self._taken.get(names[-1] if names else name, [])
            if len(users) != 1 or users[0].op_type != "Unsqueeze" or value(self._tensors, users[0].input[1]).tolist() != [axis]:
                return []
            names.append(users[0].output[0])
        return names

    def _take_in_constant(self, part: _Part) -> None:
        """part + constant: into the bias."""
        add = self._only_user(part.name, "Add")
        if add is None:
            return
        other = next(name for name in add.input if name != part.name)
        if other in self._tensors and value(self._tensors, other).size == 1:
            self.bias[part.start : part.end] += value(self._tensors, other).ravel()[0]
            part.name = add.output[0]
            self.gone.add(part.name)

    def _take_in_norm(self, part: _Part) -> None:
        """(x g + o) part + other part, with constants g and o [C, 1, 1]: x (g part) + (o part + other part)."""
        product = self._only_user(part.name, "Mul")
        shifted = self._only_user(product.output[0], "Add") if product is not None and part.is_map else None
        if product is None or shifted is None:
            return
        names = {other.name: other for other in self.parts}
        shift = next((names[name] for name in shifted.input if name in names), None)
        offset = self._made.get(next(name for name in product.input if name != part.name))
        gain = self._made.get(offset.input[0]) if offset is not None and offset.op_type == "Add" else None
        if shift is None or offset is None or gain is None or gain.op_type != "Mul" or self._only_user(shift.name, "Add") is None:
            return
        if gain.input[1] not in self._tensors or offset.input[1] not in self._tensors:
            return
        if any(len(self._taken[node.output[0]]) != 1 for node in (gain, offset)):
            return
        g, o = value(self._tensors, gain.input[1]).ravel(), value(self._tensors, offset.input[1]).ravel()
        scaled, moved = slice(part.start, part.end), slice(shift.start, shift.end)
        self.weight[:, moved] += o * self.weight[:, scaled]
        self.bias[moved] += o * self.bias[scaled]
        self.weight[:, scaled] *= g
        self.bias[scaled] *= g
        self.gone.update((gain.output[0], offset.output[0]))
        self.renamed[offset.output[0]] = gain.input[0]

    def _only_user(self, name: str, kind: str) -> NodeProto | None:
        users = self._taken.get(name, [])
        return users[0] if len(users) == 1 and users[0].op_type == kind else None


def join(model: onnx.ModelProto) -> None:
    """Join, in place, all products of one input with constant weights."""
    tensors, taken = constants(model), consumers(model)
    groups: dict[str, list[_Product]] = {}
    for node in model.graph.node:
        product = _product(node, tensors, taken)
        if product is not None:
            groups.setdefault(node.input[0], []).append(product)
    for products in groups.values():
        if len(products) < 2:
            continue
        joiner = _Joiner(model, products)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            if node is products[0].nodes[0] or node.output[0] == products[0].nodes[0].output[0]:
                nodes += joiner.nodes()
            elif node.output[0] not in joiner.gone:
                node.input[:] = [joiner.renamed.get(name, name) for name in node.input]
                nodes.append(node)
        set_nodes(model, nodes)


def _product(node: NodeProto, tensors: dict[str, onnx.TensorProto], taken: dict[str, list[NodeProto]]) -> _Product | None:
    if node.op_type == "Gemm" and all(name in tensors for name in node.input[1:]) and len(node.input) == 3:
        if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
            return None
        weight = value(tensors, node.input[1])
        return _Product([node], weight.T if attribute(node, "transB", 0) else weight, value(tensors, node.input[2]), node.output[0])
    if node.op_type != "MatMul" or node.input[1] not in tensors:
        return None
    users = taken.get(node.output[0], [])
    if len(users) != 1 or users[0].op_type != "Add":
        return None
    bias = next(name for name in users[0].input if name != node.output[0])
    weight = value(tensors, node.input[1])
    if bias not in tensors or weight.ndim != 2 or list(tensors[bias].dims) != [weight.shape[1]]:
        return None
    return _Product([node, users[0]], weight, value(tensors, bias), users[0].output[0])
