"""Sequences [B, L, C] as rows [B L, C]: there a product with its bias is one Gemm, which ONNX Runtime's 8-bit kernels take whole.

What works row by row between two products stays in rows, and queries, keys and values are made apart instead of cut apart. Exact.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from quantize.graph import attribute, constants, consumers, producers, set_constants, set_nodes, value

ROW_BY_ROW = ("Add", "Sub", "Mul", "Div", "Erf", "Sigmoid", "LayerNormalization")
HEADS_FIRST = [2, 0, 3, 1, 4]  # [B, L, 3, heads, d] to [3, B, heads, L, d]
Shapes = dict[str, tuple[int, ...]]  # of the graph's tensors, at batch 1


def separate_heads(model: onnx.ModelProto, shapes: Shapes) -> None:
    """One product whose result is cut into queries, keys and values becomes three, in place."""
    tensors, taken = constants(model), consumers(model)
    nodes: list[NodeProto] = []
    gone: set[str] = set()
    for node in model.graph.node:
        chain = [node]
        for kind in ("Add", "Reshape", "Transpose", "Split"):
            users = taken.get(chain[-1].output[0], [])
            if len(users) == 1 and users[0].op_type == kind:
                chain.append(users[0])
        squeezed = [user for name in chain[-1].output for user in taken.get(name, [])]
        fits = node.op_type == "MatMul" and node.input[1] in tensors and len(chain) == 5 and attribute(chain[3], "perm") == HEADS_FIRST
        if node.output[0] in gone or not fits or [each.op_type for each in squeezed] != ["Squeeze"] * 3:
            nodes += [] if node.output[0] in gone else [node]
            continue
        bias = next(name for name in chain[1].input if name != node.output[0])
        weights, biases = (np.split(value(tensors, name), 3, axis=-1) for name in (node.input[1], bias))
        _, heads, length, size = shapes[squeezed[0].output[0]]
        gone.update(output for each in (*chain, *squeezed) for output in each.output)
        for part, weight, offset, last in zip(("query", "key", "value"), weights, biases, squeezed):
            name = last.output[0]
            set_constants(model, {f"{name}::weight": weight, f"{name}_bias": offset, f"{name}_heads": np.array([0, length, heads, size])})
            nodes += [
                helper.make_node("MatMul", [node.input[0], f"{name}::weight"], [f"{name}_product"], node.name.replace("MatMul", part)),
                helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [f"{name}_flat"]),
                helper.make_node("Reshape", [f"{name}_flat", f"{name}_heads"], [f"{name}_apart"]),
                helper.make_node("Transpose", [f"{name}_apart"], [name], perm=[0, 2, 1, 3]),
            ]
    set_nodes(model, nodes)


def flatten(model: onnx.ModelProto, shapes: Shapes) -> None:
    """Every product of a sequence with a constant and its bias becomes a Gemm of rows, in place."""
    writer = _Writer(model, shapes)
    for node in list(model.graph.node):
        writer.add(node)
    for output in model.graph.output:
        writer.sequence(output.name)
    set_nodes(model, writer.nodes)


class _Writer:
    """Writes the graph anew, each node in rows if it can be."""

    def __init__(self, model: onnx.ModelProto, shapes: Shapes) -> None:
        self._model, self._shapes = model, shapes
        self._tensors, self._made, self._taken = constants(model), producers(model), consumers(model)
        self._biases: set[str] = set()  # results of products, in which the bias is
        self._rows: dict[str, str] = {}  # tensors that are there as rows, and under which name
        self._only_rows: set[str] = set()  # and not as sequences
        self.nodes: list[NodeProto] = []

    def add(self, node: NodeProto) -> None:
        """The next node of the graph as it was."""
        if node.output[0] in self._biases:
            return
        bias = self._bias(node)
        if bias is not None:
            self._biases.add(bias.output[0])
            offset = next(name for name in bias.input if name != node.output[0])
            product = helper.make_node("Gemm", [*node.input, offset], [bias.output[0]], node.name.replace("MatMul", "Gemm"))
            self._write(product, [self._as_rows(node.input[0]), node.input[1], offset])
        elif self._works_row_by_row(node):
            self._write(node, [self._as_rows(name) for name in node.input])
        elif node.op_type == "Split" and node.input[0] in self._rows and attribute(node, "axis") in (-1, 2):
            last = NodeProto()
            last.CopyFrom(node)
            next(each for each in last.attribute if each.name == "axis").i = -1
            self._write(last, [self._rows[node.input[0]], *node.input[1:]])
        elif self._leaves_rows(node):
            self._reshape(self._rows[node.input[0]], node.output[0], [-1, *self._shapes[node.output[0]][1:]])
        else:
            for name in node.input:
                self.sequence(name)
            self.nodes.append(node)

    def sequence(self, name: str) -> None:
        """See that the tensor is there as a sequence, too."""
        if name in self._only_rows:
            self._reshape(self._rows[name], name, [-1, *self._shapes[name][-2:]])
            self._only_rows.remove(name)

    def _as_rows(self, name: str) -> str:
        if name not in self._rows and name not in self._tensors:
            maker = self._made.get(name)
            source = maker.input[0] if maker is not None and maker.op_type == "Reshape" else name
            self._rows[name] = f"{name}_rows"
            self.sequence(source)
            self._reshape(source, f"{name}_rows", [-1, self._shapes[name][-1]])
        return self._rows.get(name, name)

    def _reshape(self, source: str, result: str, shape: list[int]) -> None:
        set_constants(self._model, {f"{result}_shape": np.array(shape)})
        self.nodes.append(helper.make_node("Reshape", [source, f"{result}_shape"], [result]))

    def _write(self, node: NodeProto, inputs: list[str]) -> None:
        new = NodeProto()
        new.CopyFrom(node)
        new.input[:], new.output[:] = inputs, [f"{name}_rows" for name in node.output]
        self._rows.update(zip(node.output, new.output))
        self._only_rows.update(node.output)
        self.nodes.append(new)

    def _bias(self, node: NodeProto) -> NodeProto | None:
        """The Add of a bias behind a product of a sequence with a constant."""
        users = self._taken.get(node.output[0], [])
        if node.op_type != "MatMul" or node.input[1] not in self._tensors or [user.op_type for user in users] != ["Add"]:
            return None
        bias = next(name for name in users[0].input if name != node.output[0])
        fits = bias in self._tensors and list(self._tensors[bias].dims) == [self._shapes[node.output[0]][-1]]
        return users[0] if fits and len(self._shapes[node.input[0]]) == 3 else None

    def _leaves_rows(self, node: NodeProto) -> bool:
        """Whether the node reshapes rows to something that infers no more than the batch."""
        if node.op_type != "Reshape" or node.input[0] not in self._rows or node.input[1] not in self._tensors:
            return False
        batch, *rest = value(self._tensors, node.input[1]).tolist()
        return batch <= 0 and all(extent > 0 for extent in rest)

    def _works_row_by_row(self, node: NodeProto) -> bool:
        """Whether the node does the same with every row, and one of its inputs is there as rows."""
        shape = self._shapes.get(node.output[0], ())
        if node.op_type not in ROW_BY_ROW or len(shape) != 3 or not any(name in self._rows for name in node.input):
            return False
        alike = [len(self._tensors[name].dims) <= 1 if name in self._tensors else self._shapes[name] == shape for name in node.input]
        return all(alike) and attribute(node, "axis", -1) in (-1, 2)
