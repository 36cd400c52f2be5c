"""Operations of a graph, against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flashlips_edge.evaluation import flops


def graph(path: Path, nodes: list, inputs: dict, outputs: list[str], weights: dict) -> Path:
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "hand-made",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, path)
    return path


def test_flops_of_a_convolution_a_product_and_a_layer(tmp_path):
    path = graph(
        tmp_path / "tiny.onnx",
        [
            helper.make_node("Conv", ["x", "kernel"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1], group=2),
            helper.make_node("ConvTranspose", ["a", "up"], ["b"], strides=[2, 2]),
            helper.make_node("Flatten", ["b"], ["c"]),
            helper.make_node("Gemm", ["c", "layer"], ["d"], transB=1),
            helper.make_node("MatMul", ["d", "last"], ["y"]),
        ],
        {"x": ["batch", 4, 8, 8]},
        ["y"],
        {
            "kernel": np.zeros((6, 2, 3, 3)),
            "up": np.zeros((6, 5, 2, 2)),
            "layer": np.zeros((7, 5 * 8 * 8)),
            "last": np.zeros((7, 3)),
        },
    )
    conv = 2 * 6 * 4 * 4 * (2 * 3 * 3)
    transposed = 2 * 6 * 4 * 4 * (5 * 2 * 2)
    layers = 2 * (5 * 8 * 8) * 7 + 2 * 7 * 3
    one = flops.count(path, {"x": np.zeros((1, 4, 8, 8), np.float32)})
    assert one == conv + transposed + layers
    assert flops.count(path, {"x": np.zeros((3, 4, 8, 8), np.float32)}) == 3 * one


def test_flops_of_an_uncounted_operation_are_refused_by_name(tmp_path):
    node = helper.make_node("Einsum", ["x", "x"], ["y"], equation="bi,bj->bij")
    with pytest.raises(ValueError, match="Einsum"):
        flops.count(graph(tmp_path / "e.onnx", [node], {"x": [1, 2]}, ["y"], {}), {"x": np.zeros((1, 2), np.float32)})
