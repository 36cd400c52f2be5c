"""Kernels as TensorRT plugins, an option: which parts of a graph they stand for, their PTX, and a check that it still means the same.

GroupNorm with modulation and SiLU is what pays: TensorRT makes several kernels of it, ours reads the tensor once. Only where a group fits
into one block and the picture's size is fixed, since a plugin is one kernel. Attention and convolutions are left to TensorRT's own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import NodeProto, helper, numpy_helper

from flashlips_edge.bundle import Bundle
from flashlips_edge.engines.plugins import NAMESPACE, SCHEMA, Plugin
from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes
from kernels.aot.compile import assemble, compile_kernel
from kernels.aot.folder import check
from kernels.chips import Chip
from kernels.group_norm_silu.kernel import group_norm_silu
from kernels.launches import record
from kernels.specialisation import Specialisation
from quantize import graph as graphs

TYPES = {"float16": torch.float16, "float32": torch.float32}
PARAMETERS = ("x", "weight", "bias", "scale", "shift", "y", "mean_out", "rstd_out")  # inputs first, then outputs
TOLERANCE = 0.02  # of the largest output, between a graph and the same with nodes for kernels, at half precision


@dataclass(frozen=True)
class Shape:
    """What tells one kernel from another: x [B, channels, height, width] in `groups`."""

    channels: int
    height: int
    width: int
    groups: int
    eps: float
    modulated: bool
    kind: str  # float16 or float32


@dataclass(frozen=True)
class Place:
    """Nodes from a GroupNorm to its SiLU, `last`; weight and bias [C]; scale and shift are names of tensors [B, C], or None."""

    last: NodeProto
    x: str
    weight: np.ndarray
    bias: np.ndarray
    scale: str | None
    shift: str | None
    shape: Shape


def write(source: Bundle, chip: Chip, folder: Path) -> list[Plugin]:
    """Write the plugins of a bundle into `folder`; gives them.

    UserError: no graph has a place for a kernel, the chip would run one badly, or a graph with them means something else.
    """
    plugins: dict[Shape, Plugin] = {}
    for name in source.manifest["graphs"]:
        model = onnx.load(str(source.graph_path(name)))
        places = list(find(model, source.golden(name)[0]))
        for shape in (place.shape for place in places):
            if shape not in plugins:
                plugins[shape], ptx = compile_plugin(shape, chip)
                write_bytes(folder / plugins[shape].ptx, ptx.encode("ascii"))
        if places:
            rewrite(model, places, plugins)
            compare(source, name, model, {plugin.name: shape for shape, plugin in plugins.items()})
            write_bytes(folder / f"{name}.onnx", model.SerializeToString(deterministic=True))
    if not plugins:
        raise UserError("--plugins: no graph of this preset has a GroupNorm with SiLU that one kernel can do; leave the option away")
    found = sorted(plugins.values(), key=lambda plugin: plugin.name)
    manifest = {"schema": SCHEMA, "capability": chip.capability, "plugins": [asdict(plugin) for plugin in found]}
    write_bytes(folder / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
    return found


def find(model: onnx.ModelProto, feed: graphs.Feed) -> Iterator[Place]:
    """Every place that a kernel can take; `feed` are inputs of the graph, which tell the shapes of its tensors."""
    if graphs.has_free_axes(model):
        return
    made, values = graphs.producers(model), _values(model)
    reshaped = [made.get(node.input[0]) for node in model.graph.node if node.op_type == "InstanceNormalization"]
    tensors = graphs.Probe(model, sorted({node.input[0] for node in reshaped if node is not None})).run(feed)
    for node in model.graph.node:
        try:
            place = _place(node, made, values, tensors)
        except (KeyError, IndexError, ValueError):  # something else than is looked for stands there
            continue
        if place is not None:
            yield place


def _place(node: NodeProto, made: dict[str, NodeProto], values: dict[str, np.ndarray], tensors: dict[str, np.ndarray]) -> Place | None:
    """The place that ends in `node`: x -> Reshape, InstanceNormalization, Reshape, times weight, plus bias, then (1 + scale) and shift or
    neither, then times its own sigmoid."""
    if node.op_type != "Mul":
        return None
    (sigmoid,) = [made[name] for name in node.input if made[name].op_type == "Sigmoid"]
    top, scale, shift = made[sigmoid.input[0]], None, None
    if sigmoid.input[0] not in node.input or top.op_type != "Add":
        return None
    if not {*top.input} & values.keys():  # modulated: (norm * (1 + scale)) + shift
        product, shift = made[top.input[0]], _vector(top.input[1], made)
        plus = made[product.input[1]]
        (one,) = (values[name] for name in plus.input if name in values)
        scale = _vector(next(name for name in plus.input if name not in values), made)
        top = made[product.input[0]]
        if (product.op_type, plus.op_type, top.op_type) != ("Mul", "Add", "Add") or one.size != 1 or one.item() != 1:
            return None
    bias, weighted = _with_constant(top, values)
    weight, back = _with_constant(made[weighted], values)
    norm = made[made[back].input[0]]
    before = made[norm.input[0]]
    kinds = (made[weighted].op_type, made[back].op_type, norm.op_type, before.op_type)
    if kinds != ("Mul", "Reshape", "InstanceNormalization", "Reshape"):
        return None
    ones, zeros, x = values[norm.input[1]], values[norm.input[2]], before.input[0]
    _, channels, height, width = tensors[x].shape
    eps, kind = float(graphs.attribute(norm, "epsilon", 1e-5)), tensors[x].dtype.name  # type: ignore[arg-type]
    plain = bool(np.all(ones == 1) and np.all(zeros == 0))
    if kind not in TYPES or not plain or weight.size != channels or channels % len(ones):
        return None
    shape = Shape(channels, height, width, len(ones), round(eps, 12), scale is not None, kind)
    return Place(node, x, weight.reshape(-1), bias.reshape(-1), scale, shift, shape) if _launches(shape) else None


def _vector(name: str, made: dict[str, NodeProto]) -> str:
    """The tensor [B, C] that was unsqueezed to [B, C, 1, 1]."""
    while made[name].op_type == "Unsqueeze":
        name = made[name].input[0]
    return name


def _with_constant(node: NodeProto, values: dict[str, np.ndarray]) -> tuple[np.ndarray, str]:
    """The constant of a node with two inputs, and the other."""
    (constant,) = (name for name in node.input if name in values)
    (other,) = (name for name in node.input if name not in values)
    return values[constant], other


def _values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    return {name: numpy_helper.to_array(tensor) for name, tensor in (graphs.constants(model) | constants).items()}


def _launches(shape: Shape) -> list[Any]:
    """The one launch that does it, for a picture; none where a group needs several blocks."""
    like = {"dtype": TYPES[shape.kind], "device": "meta"}
    x, vector = torch.empty(1, shape.channels, shape.height, shape.width, **like), torch.empty(shape.channels, **like)
    condition = torch.empty(1, shape.channels, **like) if shape.modulated else None
    call = partial(group_norm_silu, x, vector, vector.clone(), shape.groups, shape.eps, condition, condition)
    launches = record(call)
    return launches if len(launches) == 1 else []


def compile_plugin(shape: Shape, chip: Chip) -> tuple[Plugin, str]:
    """The kernel of a shape and its PTX. UserError where the chip would run it badly."""
    (launch,) = _launches(shape)
    arguments = launch.arguments | {"total": None}  # without a residual it is x again, and nobody reads it
    pointers = [name for name in PARAMETERS if isinstance(arguments[name], torch.Tensor)]
    specialisation = Specialisation(
        "group_norm_silu",
        f"group_norm_silu_{shape.channels}x{shape.height}x{shape.width}",
        launch.function,
        types={name: "*fp16" if shape.kind == "float16" and not name.endswith("_out") else "*fp32" for name in pointers},
        constants={name: value for name, value in arguments.items() if name not in pointers},
        aligned=("x", "y"),  # whole tensors; nobody promises where a small one begins
        grid=launch.grid,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
        flops=0,
        bytes=0,
        cooperative=False,
    )
    compiled = compile_kernel(specialisation, chip)
    check([compiled], chip)
    ptx = without_hidden(compiled.ptx, len(pointers))
    assemble(ptx, chip.capability)  # that it still is a kernel
    stem = f"{specialisation.name}{'_modulated' if shape.modulated else ''}_{hashlib.sha256(ptx.encode()).hexdigest()[:8]}"
    inputs = tuple(name for name in pointers if name in PARAMETERS[:5])
    return Plugin(stem, f"{stem}.ptx", compiled.entry, inputs, shape.groups, 32 * compiled.warps, compiled.shared), ptx


def without_hidden(ptx: str, count: int) -> str:
    """PTX whose kernel has its first `count` parameters only: TensorRT gives none to those that Triton appends.

    ValueError where the kernel reads one of them."""
    start, end = ptx.index(".entry"), ptx.index("{", ptx.index(".entry"))
    opening, closing = ptx.index("(", start), ptx.rindex(")", start, end)
    parameters = [each.strip() for each in ptx[opening + 1 : closing].split(",")]
    for hidden in parameters[count:]:
        name = hidden.split()[-1]
        if re.search(rf"{re.escape(name)}\b", ptx[end:]):
            raise ValueError(f"the kernel reads its parameter {name}, which TensorRT does not give")
    return ptx[: opening + 1] + "\n\t" + ",\n\t".join(parameters[:count]) + "\n" + ptx[closing:]


def rewrite(model: onnx.ModelProto, places: list[Place], plugins: dict[Shape, Plugin]) -> None:
    """Put a node for the kernel into every place; what then leads nowhere is dropped."""
    nodes, constants = list(model.graph.node), {}
    for place in places:
        stem = place.last.output[0]
        kind = np.dtype(place.shape.kind)
        constants |= {f"{stem}.weight": place.weight.astype(kind), f"{stem}.bias": place.bias.astype(kind)}
        inputs = [place.x, f"{stem}.weight", f"{stem}.bias", *(name for name in (place.scale, place.shift) if name is not None)]
        outputs = [stem, f"{stem}.mean", f"{stem}.rstd"]
        name = plugins[place.shape].name
        node = helper.make_node(name, inputs, outputs, place.last.name, plugin_namespace=NAMESPACE, plugin_version="1", aot=1)
        nodes[next(i for i, each in enumerate(nodes) if each.output == place.last.output)] = node
    graphs.set_constants(model, constants)
    graphs.set_nodes(model, nodes)


def compare(bundle: Bundle, name: str, model: onnx.ModelProto, shapes: dict[str, Shape]) -> float:
    """How far the rewritten graph is from the bundle's golden outputs, each kernel's node computed by its formula in ONNX Runtime.

    UserError where it is too far: the nodes were put into the wrong places."""
    whole = graphs.copy(model)
    whole.opset_import.append(helper.make_opsetid(NAMESPACE, 1))
    for node in whole.graph.node:
        if node.op_type in shapes:
            node.domain = NAMESPACE
            del node.attribute[:]
    used = {node.op_type for node in whole.graph.node if node.domain == NAMESPACE}
    opset = next(entry for entry in model.opset_import if entry.domain == "")
    whole.functions.extend(formula(kernel, shapes[kernel], opset) for kernel in sorted(used))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs, expected = bundle.golden(name)
    given = dict(zip(expected, session.run(list(expected), inputs)))
    error = max(float(np.abs(given[key] - expected[key]).max() / np.abs(expected[key]).max()) for key in expected)
    if not error <= TOLERANCE:
        raise UserError(f"--plugins: graph {name} with nodes for kernels is {error:.1%} of the largest output apart from the graph without")
    return error


def formula(name: str, shape: Shape, opset: onnx.OperatorSetIdProto) -> onnx.FunctionProto:
    """silu(norm(x) * (1 + scale) + shift), in float32 inside, as a function of ONNX: kernels/group_norm_silu/reference.py in its words."""
    inputs = [each for each in PARAMETERS[:5] if shape.modulated or each not in ("scale", "shift")]
    text = f"""
        <domain: "{NAMESPACE}", opset_import: ["" : {opset.version}]>
        {name} ({", ".join(inputs)}) => (y, mean, rstd) {{
            grouped = Constant <value_ints = [0, {shape.groups}, -1]> ()
            column = Constant <value_ints = [1, {shape.channels}, 1, 1]> ()
            map = Constant <value_ints = [-1, {shape.channels}, 1, 1]> ()
            last = Constant <value_ints = [2]> ()
            one = Constant <value_float = 1.0> ()
            eps = Constant <value_float = {shape.eps:.12f}> ()
            size = Shape (x)
            wide = Cast <to = 1> (x)
            groups = Reshape (wide, grouped)
            average = ReduceMean (groups, last)
            away = Sub (groups, average)
            squares = Mul (away, away)
            variance = ReduceMean (squares, last)
            above = Add (variance, eps)
            deviation = Sqrt (above)
            normed = Div (away, deviation)
            flat = Reshape (normed, size)
            weight32 = Cast <to = 1> (weight)
            bias32 = Cast <to = 1> (bias)
            weights = Reshape (weight32, column)
            biases = Reshape (bias32, column)
            weighted = Mul (flat, weights)
            affine = Add (weighted, biases)
            {_MODULATED if shape.modulated else "modulated = Identity (affine)"}
            share = Sigmoid (modulated)
            result = Mul (modulated, share)
            y = CastLike (result, x)
            mean = Squeeze (average, last)
            inverse = Div (one, deviation)
            rstd = Squeeze (inverse, last)
        }}
    """
    return onnx.parser.parse_function(text)


_MODULATED = """
            scale32 = Cast <to = 1> (scale)
            shift32 = Cast <to = 1> (shift)
            scales = Reshape (scale32, map)
            shifts = Reshape (shift32, map)
            grow = Add (scales, one)
            grown = Mul (affine, grow)
            modulated = Add (grown, shifts)
"""
