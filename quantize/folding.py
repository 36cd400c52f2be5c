"""What depends on the shapes alone becomes a constant: an exported graph works its shapes out anew in every run."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from quantize.graph import Feed, Probe, constants, set_constants, set_nodes


def fold(model: onnx.ModelProto, feed: Feed) -> None:
    """Fold, in place, what is the same at every batch size; ``feed`` is any one run's inputs.

    What does not depend on the inputs' values is worked out at batch 2 and at batch 3. Where both agree it becomes a constant; a
    Reshape whose new shape differs in one place only infers that place.
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
    set_constants(model, {name: two[name] for name in shapes if name in fixed and name not in known})
    set_nodes(model, [node for node in model.graph.node if not fixed.issuperset(node.output)])
    share(model)


def share(model: onnx.ModelProto) -> None:
    """Equal constants become one: a network that is called in a loop was exported with its weights under many names."""
    first: dict[tuple, str] = {}
    names = {
        t.name: first.setdefault((t.data_type, tuple(t.dims), numpy_helper.to_array(t).tobytes()), t.name) for t in model.graph.initializer
    }
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    set_nodes(model, list(model.graph.node))
