"""The layers that stay out of low precision in FP16, by modelopt's AutoCast: every tensor's type stands in the graph."""

from __future__ import annotations

import logging

import onnx

from flashlips_edge.errors import UserError
from quantize.folding import share

OPSET = 19  # the first with FP16 scales in Q/DQ; TensorRT 10.3 takes up to 20


def convert(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose inputs and outputs stay fp32. UserError where nvidia-modelopt is missing."""
    try:
        from modelopt.onnx.autocast.convert import convert_to_f16
        from onnx_graphsurgeon.logger import G_LOGGER
    except ImportError as error:
        raise UserError(f"FP16 graphs need nvidia-modelopt, and {error.name or 'it'} is missing: pip install '.[quantize]'") from None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    logging.disable(logging.WARNING)  # it reports every constant that FP16 rounds to zero
    before, G_LOGGER.severity = G_LOGGER.severity, G_LOGGER.ERROR  # and graphsurgeon every constant of FP8
    try:
        result = convert_to_f16(copy, keep_io_types=True, opset=OPSET)
    finally:
        logging.disable(logging.NOTSET)
        G_LOGGER.severity = before
    share(result)  # it gives each user of a weight a copy
    _order(result.graph)
    return result


def _order(graph: onnx.GraphProto) -> None:
    """The inputs' casts first and by name, as are the tensors' types: AutoCast takes both from sets, in another order in each process."""
    given = {entry.name for entry in graph.input}
    nodes = sorted(graph.node, key=lambda node: (0, node.name) if node.op_type == "Cast" and node.input[0] in given else (1, ""))
    types = sorted(graph.value_info, key=lambda entry: entry.name)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(types)
