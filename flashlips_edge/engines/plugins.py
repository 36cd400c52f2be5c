"""Our kernels inside of TensorRT's engines: plugins compiled ahead of time, for TensorRT 10.9 and later. An option of `make engine`.

The folder `plugins` of a bundle holds, as targets/plugins.py wrote them, the graphs in which nodes stand for kernels, each kernel's PTX,
and how it is launched. The engine takes them in when it is built; whoever runs it needs neither Python nor this folder.
"""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass
from typing import Any

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError

FOLDER = "plugins"
NAMESPACE = "flashlips"
SCHEMA = 1
NEEDS = (10, 9)  # of TensorRT
ENTRIES = {"name": str, "ptx": str, "entry": str, "inputs": list, "groups": int, "threads": int, "shared": int}

_registered: set[tuple[str, str]] = set()  # library and plugin; a library takes each once in a process


@dataclass(frozen=True)
class Plugin:
    """A kernel of one block for each group of channels of each picture: inputs x [B, C, h, w] and others, outputs y like x, and mean and
    rstd float32 [B, groups], which nobody needs. Its parameters are pointers in this order.

    name      of the node in the graph; no other kernel has it, since it ends in a digest of the PTX
    entry     the kernel's name in the PTX
    threads   of a block
    shared    memory of a block, bytes
    """

    name: str
    ptx: str
    entry: str
    inputs: tuple[str, ...]
    groups: int
    threads: int
    shared: int


def has_plugins(bundle: Bundle) -> bool:
    return f"{FOLDER}/manifest.json" in bundle.manifest["files"]


def graph_bytes(bundle: Bundle, graph: str) -> bytes:
    """The graph that a compiler is given: with nodes for our kernels where the bundle has it so."""
    name = f"{FOLDER}/{graph}.onnx"
    path = bundle.folder / name if name in bundle.manifest["files"] else bundle.graph_path(graph)
    return path.read_bytes()


def register(bundle: Bundle, library: Any) -> int:
    """Make the bundle's plugins known to `library`, before it reads a graph; gives their number.

    UserError: a library that has no such plugins, or a manifest that is malformed."""
    if not has_plugins(bundle):
        return 0
    version = tuple(int(part) for part in library.__version__.split(".")[:2])
    if library.__name__ != "tensorrt" or version < NEEDS:
        raise UserError(
            f"bundle {bundle.folder} has kernels as plugins, which need tensorrt {NEEDS[0]}.{NEEDS[1]} or later, and this is "
            f"{library.__name__} {library.__version__}; make the bundle again without --plugins"
        )
    plugins = read(bundle)
    module = importlib.import_module(f"{library.__name__}.plugin")
    for plugin in plugins:
        if (library.__name__, plugin.name) not in _registered:
            _register(module, library, plugin, (bundle.folder / FOLDER / plugin.ptx).read_text(encoding="ascii"))
            _registered.add((library.__name__, plugin.name))
    return len(plugins)


def read(bundle: Bundle) -> list[Plugin]:
    """The plugins of a bundle. UserError where their manifest is malformed or newer, or names a file that is not the bundle's."""
    path = bundle.folder / FOLDER / "manifest.json"
    again = f"make the bundle again with make engine TARGET={(bundle.manifest.get('target') or {}).get('name', 'NAME')}"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path}: not a readable manifest; {again}") from None
    entries = manifest.get("plugins") if isinstance(manifest, dict) else None
    if not isinstance(entries, list) or manifest.get("schema") != SCHEMA:
        raise UserError(f"{path}: not a manifest of plugins of schema {SCHEMA}; {again}")
    for number, entry in enumerate(entries):
        wrong = [key for key, kind in ENTRIES.items() if not isinstance(entry, dict) or type(entry.get(key)) is not kind]
        if not wrong and f"{FOLDER}/{entry['ptx']}" not in bundle.manifest["files"]:
            wrong = ["ptx"]
        if not wrong and not all(isinstance(name, str) and name.isidentifier() for name in entry["inputs"]):
            wrong = ["inputs"]
        if wrong:
            raise UserError(f"{path}: the plugin {number} is malformed ({wrong[0]}); {again}")
    values: list[dict[str, Any]] = [{key: entry[key] for key in ENTRIES} | {"inputs": tuple(entry["inputs"])} for entry in entries]
    return [Plugin(**each) for each in values]


def _register(module: Any, library: Any, plugin: Plugin, ptx: str) -> None:
    """TensorRT reads names and types of the arguments from signatures, which are made here, since inputs differ in number."""
    tensor, kind = module.TensorDesc, inspect.Parameter.POSITIONAL_OR_KEYWORD
    inputs = [inspect.Parameter(name, kind, annotation=tensor) for name in plugin.inputs]
    outputs = tuple.__class_getitem__((tensor, tensor, tensor))

    def describe(*given: Any) -> Any:
        x = given[0]
        statistics = (x.shape_expr[0], plugin.groups)
        return x.like(), *(module.from_shape_expr(statistics, library.float32) for _ in range(2))

    def launch(*given: Any) -> Any:
        shape = module.KernelLaunchParams()
        shape.grid_x = given[0].shape_expr[0] * plugin.groups
        shape.block_x, shape.shared_mem = plugin.threads, plugin.shared
        return plugin.entry, ptx, shape, module.SymIntExprs(0)

    others = [inspect.Parameter("outputs", kind, annotation=outputs), inspect.Parameter("tactic", kind, annotation=int)]
    made = tuple[str | bytes, str | bytes, module.KernelLaunchParams, module.SymExprs]
    vars(describe)["__signature__"] = inspect.Signature(inputs, return_annotation=outputs)
    vars(launch)["__signature__"] = inspect.Signature([*inputs, *others], return_annotation=made)
    module.register(f"{NAMESPACE}::{plugin.name}")(describe)
    module.aot_impl(f"{NAMESPACE}::{plugin.name}")(launch)
