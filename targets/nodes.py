"""The precision that a graph asks for, node by node: what an engine's layers are compared with on the device."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from quantize.graph import HEAVY, constants, producers

NAMES = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT16: "fp16",
    TensorProto.FLOAT: "fp32",
}


def asked(model: onnx.ModelProto) -> dict[str, str]:
    """The type of the weight of each convolution and product that has one, by the node's name: through Q/DQ it is int8 or fp8."""
    tensors, made = constants(model), producers(model)
    result = {}
    for node in model.graph.node:
        if node.op_type not in HEAVY or not node.name:
            continue
        name = node.input[1]
        while name in made and made[name].op_type in ("DequantizeLinear", "Cast", "Transpose", "Identity"):
            name = made[name].input[0]
        if name in tensors and tensors[name].data_type in NAMES:
            result[node.name] = NAMES[tensors[name].data_type]
    return result


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's operations that the graph is written in."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
