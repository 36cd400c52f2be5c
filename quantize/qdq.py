"""Q/DQ pairs in standard ONNX: per-channel weights, static activations, in the shape that a target's engine fuses."""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, helper

from quantize.graph import constants, consumers, copy, set_constants, set_nodes, value

FP8_MAX = 448.0
INT8_MAX = 127
FUSED_MAX = 64  # of weights: a processor without VNNI adds two products with uint8 in 16 bits, 2 * 64 * 255 is what fits
HEADROOM = 2.0  # over the largest activation seen: a floating-point format loses nothing by it, and a picture beyond does not clip
BIAS_MAX = 2.0**30  # which float32 holds too
OPSET = {"int8": 18, "fp8": 19}
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
Ranges = dict[str, tuple[float, float]]


def weight_max(form: str, fused: bool) -> float:
    """The largest magnitude of a quantised weight."""
    return FP8_MAX if form == "fp8" else FUSED_MAX if fused else INT8_MAX


@dataclass
class Writer:
    """Builds the quantised copy of a graph node by node. ``fused``: as ONNX Runtime's fast kernels want it (targets.py)."""

    model: onnx.ModelProto
    ranges: Ranges
    form: str
    fused: bool
    nodes: list[NodeProto] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    low: dict[str, str] = field(default_factory=dict)  # a tensor and its quantised, dequantised self
    scales: dict[str, np.ndarray] = field(default_factory=dict)

    def activation(self, name: str) -> str:
        """The name of the tensor behind its Q/DQ pair, one pair for all that take it."""
        if name not in self.low:
            self._pair(name, name, f"{name}_dequantised")
        return self.low[name]

    def give_low(self, name: str, gates_itself: bool) -> str:
        """The name that a node shall give its output, so that all that take ``name`` get it through a Q/DQ pair.

        Where x ``gates_itself``, x sigmoid(x), a Clip that lets all of its range through stands behind the pair: ONNX Runtime gives
        each user of x a DequantizeLinear of its own, and then does not see that the two steps could be fused."""
        self._pair(name, f"{name}_full", f"{name}_wide" if gates_itself else name)
        if gates_itself:
            scale, zero = self.scales[name], self.values[f"{name}_zero"]
            ends = {f"{name}_least": 0, f"{name}_most": 255}
            self.values |= {end: np.float32(scale * (level - np.float32(zero)))[()] for end, level in ends.items()}
            self.nodes.append(helper.make_node("Clip", [f"{name}_wide", *ends], [name], f"{name}_clip"))
            self.low[name] = name
        return f"{name}_full"

    def _pair(self, name: str, source: str, result: str) -> None:
        scale, zero = self._scale(*self.ranges[name])
        self.scales[name] = scale
        self.values |= {f"{name}_scale": scale, f"{name}_zero": zero}
        arguments = [f"{name}_scale", f"{name}_zero"]
        self.nodes += [
            helper.make_node("QuantizeLinear", [source, *arguments], [f"{name}_quantised"], f"{name}_quantise"),
            helper.make_node("DequantizeLinear", [f"{name}_quantised", *arguments], [result], f"{name}_dequantise"),
        ]
        self.low[name] = result

    def _scale(self, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        if self.form == "fp8":
            return np.float32(HEADROOM * max(-low, high) / FP8_MAX)[()], np.zeros((), FP8)
        if not self.fused:
            return np.float32(max(-low, high) / INT8_MAX)[()], np.zeros((), np.int8)
        scale = np.float32((high - low) / 255)
        return scale[()], np.uint8(np.clip(np.rint(-low / scale), 0, 255))[()]

    def weight(self, name: str, axis: int, least: np.ndarray | float = 0.0) -> tuple[str, np.ndarray]:
        """The dequantised weight's name and its scales [channels] along ``axis``, none below ``least``."""
        array = value(constants(self.model), name)
        largest = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis))
        scale = np.maximum(np.maximum(largest, 1e-8) / weight_max(self.form, self.fused), least).astype(np.float32)
        if f"{name}_quantised" in self.values:  # two nodes share it
            scale = self.values[f"{name}_scale"]
        else:
            scaled = array / scale.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
            quantised = scaled.astype(FP8) if self.form == "fp8" else np.rint(scaled).astype(np.int8)
            self._constant(name, quantised, scale, axis)
        return f"{name}_dequantised", scale

    def bias(self, name: str, scale: np.ndarray, node: str) -> str:
        """The bias as int32 in units of input scale times weight scale, dequantised; for one ``node``: others have other inputs."""
        if not self.fused:
            return name
        array = value(constants(self.model), name)
        quantised = np.clip(np.rint(array / scale), -BIAS_MAX, BIAS_MAX).astype(np.int32)
        self._constant(f"{node}_bias", quantised, scale.astype(np.float32), 0)
        return f"{node}_bias_dequantised"

    def _constant(self, name: str, quantised: np.ndarray, scale: np.ndarray, axis: int) -> None:
        self.values |= {f"{name}_quantised": quantised, f"{name}_scale": scale, f"{name}_zero": np.zeros(scale.shape, quantised.dtype)}
        inputs = [f"{name}_quantised", f"{name}_scale", f"{name}_zero"]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantised"], f"{name}_dequantise", axis=axis))


def insert(model: onnx.ModelProto, low: set[str], ranges: Ranges, form: str, fused: bool) -> onnx.ModelProto:
    """A copy of the graph in which the nodes with these first outputs compute in ``form``: convolutions and products."""
    result = copy(model)
    writer, taken = Writer(result, ranges, form, fused), consumers(model)
    for node in model.graph.node:
        if node.output[0] not in low:
            writer.nodes.append(node)
            continue
        new = NodeProto()
        new.CopyFrom(node)
        transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else value(constants(model), node.input[1]).ndim - 1
        new.input[0] = writer.activation(node.input[0])
        biased = len(node.input) > 2 and node.input[2]
        least: np.ndarray | float = 0.0
        if fused and biased:  # a channel of hardly any weight may have a bias all the same, and must hold it in 32 bits
            least = np.abs(value(constants(model), node.input[2])) / (writer.scales[node.input[0]] * BIAS_MAX)
        new.input[1], scale = writer.weight(node.input[1], axis, least)
        if biased:
            new.input[2] = writer.bias(node.input[2], scale * writer.scales[node.input[0]], node.output[0])
        if fused and node.op_type == "Conv":
            new.output[0] = f"{node.output[0]}_full"
            writer.nodes.append(new)
            writer.give_low(node.output[0], _gates_itself(node.output[0], taken))
        else:
            writer.nodes.append(new)
    set_constants(result, writer.values)
    set_nodes(result, writer.nodes)
    opset = next(entry for entry in result.opset_import if entry.domain in ("", "ai.onnx"))
    opset.version = max(opset.version, OPSET[form])
    return result


def _gates_itself(name: str, taken: dict[str, list[NodeProto]]) -> bool:
    """Whether there is a SiLU of the tensor."""
    users = taken.get(name, [])
    sigmoid = next((node for node in users if node.op_type == "Sigmoid"), None)
    return sigmoid is not None and any(node.op_type == "Mul" and set(node.input) == {name, sigmoid.output[0]} for node in users)


def tensors_of(model: onnx.ModelProto, nodes: set[str], fused: bool) -> list[str]:
    """The activations whose ranges ``insert`` needs for these nodes, in the graph's order."""
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.output[0] in nodes:
            names[node.input[0]] = None
            if fused and node.op_type == "Conv":
                names[node.output[0]] = None
    return list(names)
