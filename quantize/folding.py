"""What depends on the shapes alone becomes a constant: an exported graph works its shapes out anew in every run."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from quantize.graph import Feed, Probe, constants, set_constants, set_nodes

ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def fold(model: onnx.ModelProto, feed: Feed) -> None:
    """Fold, in place, what is the same at every batch size; ``feed`` is any one run's inputs.

    What does not depend on the inputs' values is worked out at batch 2 and at batch 3. Where both agree it becomes a constant; a
    Reshape whose new shape differs in one place only infers that place; equal rows, one for each of the batch, become one row where
    arithmetic with what does depend on values repeats it.
    """
    valued = {entry.name for entry in model.graph.input}  # tensors that depend on values, not on shapes alone
    shapes: list[str] = []
    for node in model.graph.node:
        if node.op_type != "Shape" and valued.intersection(node.input):
            valued.update(node.output)
        else:
            shapes += node.output
    probe = Probe(model, shapes)
    two, three = (probe.run({name: np.repeat(array[:1], batch, axis=0) for name, array in feed.items()}) for batch in (2, 3))
    fixed = {name for name in shapes if two[name].shape == three[name].shape and np.array_equal(two[name], three[name])}
    known = set(constants(model))
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in two and node.input[1] not in fixed:
            a, b = two[node.input[1]], three[node.input[1]]
            if np.count_nonzero(a != b) == 1 and (a > 0).all():
                name = f"{node.output[0]}_shape"
                set_constants(model, {name: np.where(a == b, a, -1)})
                node.input[1] = name
        for i, name in enumerate(node.input):
            beside = node.op_type in ARITHMETIC and node.input[1 - i] in valued
            if beside and name in two and name not in fixed and _repeats(two[name], three[name]):
                set_constants(model, {f"{name}_row": two[name][:1]})
                node.input[i] = f"{name}_row"
    set_constants(model, {name: two[name] for name in shapes if name in fixed and name not in known})
    set_nodes(model, [node for node in model.graph.node if not fixed.issuperset(node.output)])
    share(model)


def _repeats(two: np.ndarray, three: np.ndarray) -> bool:
    """Whether both are the same row over and over, a row for each of the batch."""
    if two.ndim < 2 or two.shape[1:] != three.shape[1:] or 3 * len(two) != 2 * len(three):
        return False
    return bool((two == two[0]).all() and (three == two[0]).all())


def share(model: onnx.ModelProto) -> None:
    """Equal constants become one: a network that is called in a loop was exported with its weights under many names."""
    first: dict[tuple, str] = {}
    names = {
        t.name: first.setdefault((t.data_type, tuple(t.dims), numpy_helper.to_array(t).tobytes()), t.name) for t in model.graph.initializer
    }
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    set_nodes(model, list(model.graph.node))
