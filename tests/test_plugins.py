"""Kernels as TensorRT plugins: the graph with them means the same, what TensorRT is told of them fits, and an older one is refused.

TensorRT itself is not here: a stand-in takes what its module `plugin` is documented to take."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from standins import Driver, tensorrt
from test_engines import orin_bundle

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("triton", reason="triton is not installed: pip install '.[build]'")

from flashlips_edge.bundle import Bundle, write_manifest  # noqa: E402
from flashlips_edge.engines import build as device_build  # noqa: E402
from flashlips_edge.engines import plugins  # noqa: E402
from flashlips_edge.engines.cuda import Device  # noqa: E402
from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.layers import GroupNormSiLU  # noqa: E402
from kernels.chips import find_chip  # noqa: E402
from kernels.testing import run_uninterpreted  # noqa: E402
from targets import build as building  # noqa: E402
from targets import plugins as making  # noqa: E402

WIDTH, CHANNELS = 16, 16
START = """
import sys
from pathlib import Path
import onnx
from flashlips_edge.bundle import Bundle
from kernels.chips import find_chip
from targets import plugins

bundle, chip = Bundle.open(Path(sys.argv[1])), find_chip(sys.argv[2])
"""
WRITE = START + "plugins.write(bundle, chip, Path(sys.argv[3]))"
ONE = (
    START
    + """
place = next(plugins.find(onnx.load(str(bundle.graph_path("editor"))), bundle.golden("editor")[0]))
print(plugins.compile_plugin(place.shape, chip)[1])
"""
)


def uninterpreted(script: str, bundle: Bundle, *arguments: str | Path) -> str:
    """What a script prints in a process of its own: the kernels' tests have Triton interpret in this one."""
    done = run_uninterpreted("-c", script, str(bundle.folder), *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout


class Editor(torch.nn.Module):
    """With a plain and a modulated GroupNorm with SiLU, and one without SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(5 * CHANNELS, WIDTH, 3, padding=1)
        self.plain, self.modulated, self.bare = GroupNormSiLU(4, WIDTH), GroupNormSiLU(4, WIDTH), torch.nn.GroupNorm(4, WIDTH)
        self.lips, self.head = torch.nn.Linear(12, 2 * WIDTH), torch.nn.Conv2d(WIDTH, CHANNELS, 1)
        for norm in (self.plain, self.modulated, self.bare):
            torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)

    def forward(self, latent: torch.Tensor, reference_latents: torch.Tensor, lips: torch.Tensor) -> torch.Tensor:
        x = self.plain(self.stem(torch.cat([latent, reference_latents], 1)))
        scale, shift = self.lips(lips).chunk(2, 1)
        return self.head(self.bare(self.modulated(x, scale, shift)))


def with_editor(folder: Path) -> Bundle:
    """The bundle of tests/test_engines.py, with this editor."""
    from test_quantize_bundle import convolutional

    convolutional(folder)
    torch.manual_seed(0)
    inputs = {
        "latent": torch.randn(2, CHANNELS, 20, 20),
        "reference_latents": torch.randn(2, 4 * CHANNELS, 20, 20),
        "lips": torch.randn(2, 12),
    }
    torch.onnx.export(
        Editor().eval(),
        tuple(inputs.values()),
        str(folder / "editor.onnx"),
        input_names=list(inputs),
        output_names=["edited_latent"],
        dynamic_axes={name: {0: "B"} for name in (*inputs, "edited_latent")},
        opset_version=18,
        dynamo=False,
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {key: value for key, value in manifest.items() if key not in ("schema", "files")})
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return orin_bundle(tmp_path_factory.mktemp("source") / "bundle", with_editor)


@pytest.fixture(scope="module")
def pristine(source: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with plugins for an Orin."""
    folder = tmp_path_factory.mktemp("plugins") / "bundle"
    shutil.copytree(source.folder, folder)
    uninterpreted(WRITE, source, "orin", folder / plugins.FOLDER)
    fields = {key: value for key, value in source.manifest.items() if key not in ("schema", "files")}
    write_manifest(folder, fields)
    return folder


@pytest.fixture()
def bundle(pristine: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(pristine, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def test_the_graph_has_a_node_for_each_kernel_and_means_the_same(source: Bundle, bundle: Bundle) -> None:
    model = onnx.load_from_string(plugins.graph_bytes(bundle, "editor"))
    found = {plugin.name: plugin for plugin in plugins.read(bundle)}
    placed = [node for node in model.graph.node if node.op_type in found]
    assert sorted(len(node.input) for node in placed) == [3, 5]
    for node in placed:
        assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} == {
            "plugin_namespace": b"flashlips",
            "plugin_version": b"1",
            "aot": 1,
        }
        assert len(node.output) == 3 and len(node.input) == len(found[node.op_type].inputs)
    kept = [node.op_type for node in model.graph.node]
    assert kept.count("InstanceNormalization") == 1 and "Sigmoid" not in kept, "the norm without SiLU stays"
    assert plugins.graph_bytes(bundle, "latent_encoder") == bundle.graph_path("latent_encoder").read_bytes()


@pytest.mark.parametrize("spoil", ["weight", "scale and shift", "input"])
def test_a_graph_that_means_something_else_is_refused(spoil: str, source: Bundle) -> None:
    model = onnx.load(str(source.graph_path("editor")))
    places = list(making.find(model, source.golden("editor")[0]))
    shapes = {place.shape: f"kernel_{i}" for i, place in enumerate(places)}
    named = {shape: plugins.Plugin(name, "", "", (), 4, 32, 0) for shape, name in shapes.items()}
    making.rewrite(model, places, named)
    of_name = {name: shape for shape, name in shapes.items()}
    assert making.compare(source, "editor", model, of_name) < 1e-5
    node = next(node for node in model.graph.node if len(node.input) == 5 and node.op_type in of_name)
    if spoil == "scale and shift":
        node.input[3], node.input[4] = node.input[4], node.input[3]
    elif spoil == "input":
        node.input[0] = next(other.output[0] for other in model.graph.node if other.op_type == "Conv")
    else:
        node.input[1], node.input[2] = node.input[2], node.input[1]
    with pytest.raises(UserError, match="--plugins: graph editor with nodes for kernels is .*% of the largest output apart"):
        making.compare(source, "editor", model, of_name)


def test_the_ptx_is_for_the_chip_and_takes_what_tensorrt_gives(bundle: Bundle) -> None:
    for plugin in plugins.read(bundle):
        ptx = (bundle.folder / plugins.FOLDER / plugin.ptx).read_text()
        parameters = ptx[ptx.index(".entry") : ptx.index("{", ptx.index(".entry"))].count(".param")
        assert parameters == len(plugin.inputs) + 3
        assert ".target sm_87" in ptx and ".version 8.3" in ptx and f".entry {plugin.entry}(" in ptx
        assert re.findall(r"\.reqntid (\d+)", ptx) == [str(plugin.threads)] and plugin.shared < 48 << 10


@pytest.mark.parametrize(("chip", "architecture"), [("datacentre", "sm_90a"), ("thor", "sm_110a")])
def test_other_chips_get_their_own(chip: str, architecture: str, source: Bundle) -> None:
    assert f".target {architecture}" in uninterpreted(ONE, source, chip)


def test_a_kernel_that_reads_what_nobody_gives_is_refused() -> None:
    ptx = ".visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1,\n\t.param .u64 k_param_10\n)\n{\n\tld [k_param_10];\n}"
    with pytest.raises(ValueError, match="reads its parameter k_param_10"):
        making.without_hidden(ptx, 1)
    fine = making.without_hidden(ptx.replace("[k_param_10]", "[k_param_0]"), 1)
    assert fine.count(".param") == 1 and "k_param_0\n)\n{" in fine


def test_a_group_that_needs_several_blocks_is_left_alone() -> None:
    small = making.Shape(64, 16, 16, 8, 1e-5, False, "float16")
    assert making._launches(small) and not making._launches(making.Shape(128, 256, 256, 8, 1e-5, False, "float16"))


class Desc:
    """tensorrt.plugin.TensorDesc: a shape of expressions, and a type."""

    def __init__(self, shape_expr: tuple[Any, ...], dtype: str) -> None:
        self.shape_expr, self.dtype = shape_expr, dtype

    def like(self) -> Desc:
        return Desc(self.shape_expr, self.dtype)


@pytest.fixture()
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A TensorRT with the module `plugin`; `told` is what it was told of each plugin."""
    library = tensorrt("10.16.0")
    library.float32, library.told = "float32", {}
    module: Any = ModuleType("tensorrt.plugin")
    module.TensorDesc, module.KernelLaunchParams, module.SymExprs = Desc, SimpleNamespace, list
    module.SymIntExprs = lambda count: [None] * count
    module.from_shape_expr = Desc

    def keep(part: str) -> Callable[[str], Callable[[Any], Any]]:
        def named(plugin_id: str) -> Callable[[Any], Any]:
            assert part == "launch" or plugin_id not in library.told, "a plugin is registered once"
            return lambda function: library.told.setdefault(plugin_id, {}).__setitem__(part, function) or function

        return named

    module.register, module.aot_impl = keep("describe"), keep("launch")
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", module)
    monkeypatch.setattr(plugins, "_registered", set())
    return library


def test_tensorrt_is_told_shapes_launch_and_code(bundle: Bundle, library: Any) -> None:
    assert plugins.register(bundle, library) == plugins.register(bundle, library) == 2
    for plugin in plugins.read(bundle):
        told = library.told[f"flashlips::{plugin.name}"]
        given = [Desc((3, WIDTH, 20, 20), "float16"), *(Desc((WIDTH,), "float16") for _ in plugin.inputs[1:])]
        outputs = told["describe"](*given)
        assert [(each.shape_expr, each.dtype) for each in outputs] == [((3, WIDTH, 20, 20), "float16"), *[((3, 4), "float32")] * 2]
        entry, ptx, shape, extra = told["launch"](*given, outputs, 0)
        assert f".entry {entry}(" in ptx and extra == []
        assert (shape.grid_x, shape.block_x, shape.shared_mem) == (3 * 4, plugin.threads, plugin.shared)
        assert list(inspect.signature(told["describe"]).parameters) == list(plugin.inputs)
        assert list(inspect.signature(told["launch"]).parameters) == [*plugin.inputs, "outputs", "tactic"]


def test_the_device_compiles_the_graph_with_the_plugins(bundle: Bundle, library: Any) -> None:
    read: list[bytes] = []
    real = library.OnnxParser.parse

    def parse(parser: Any, graph: bytes) -> bool:
        assert library.told, "plugins are registered before a graph is read"
        read.append(graph)
        known = {"latent_encoder", "latent_decoder", "lips_encoder", "speech_encoder", "audio_to_lips"}
        plain = [bundle.graph_path(name).read_bytes() for name in known]
        return real(parser, graph if graph in plain else bundle.graph_path("editor").read_bytes())

    library.OnnxParser.parse = parse
    said: list[str] = []
    with Device(Driver()) as device:
        device_build.build(bundle, library, device, said.append)
    assert said[0] == "2 kernels as plugins"
    assert plugins.graph_bytes(bundle, "editor") in read and bundle.graph_path("editor").read_bytes() not in read


@pytest.mark.parametrize(("version", "name"), [("10.3.0", "tensorrt"), ("1.7.1", "tensorrt_rtx")])
def test_an_engine_library_without_such_plugins_is_refused(version: str, name: str, bundle: Bundle) -> None:
    with (
        Device(Driver()) as device,
        pytest.raises(
            UserError, match=rf"need tensorrt 10.9 or later, and this is {name} {version}; make the bundle again without --plugins"
        ),
    ):
        device_build.build(bundle, tensorrt(version, name), device, print)
    assert not (bundle.folder / "engine").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 9}, "not a manifest of plugins of schema 1"),
        ({"plugins": [{"name": "x"}]}, r"the plugin 0 is malformed \(ptx\)"),
        ({"ptx": "../editor.onnx"}, r"the plugin 0 is malformed \(ptx\)"),
        ({"inputs": ["x", "y z"]}, r"the plugin 0 is malformed \(inputs\)"),
        ({"threads": "many"}, r"the plugin 0 is malformed \(threads\)"),
    ],
    ids=["schema", "missing", "outside", "inputs", "type"],
)
def test_a_manifest_that_is_not_right_is_refused(change: dict[str, Any], words: str, bundle: Bundle, library: Any) -> None:
    path = bundle.folder / plugins.FOLDER / "manifest.json"
    manifest = json.loads(path.read_text())
    (manifest if change.keys() & manifest.keys() else manifest["plugins"][0]).update(change)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=words):
        plugins.register(bundle, library)


def test_only_tensorrt_takes_plugins(tmp_path: Path) -> None:
    order = building.ordered("cpu", "nano", "none", "none", None, tmp_path)
    with pytest.raises(UserError, match="--plugins: target cpu has the engine onnxruntime, and only tensorrt takes plugins"):
        building.with_plugins(order)


def test_a_bundle_without_a_place_for_a_kernel_is_refused(source: Bundle, tmp_path: Path) -> None:
    graphs = {"latent_encoder": source.manifest["graphs"]["latent_encoder"]}
    with pytest.raises(UserError, match="--plugins: no graph of this preset has a GroupNorm with SiLU"):
        making.write(Bundle(source.folder, {**source.manifest, "graphs": graphs}), find_chip("orin"), tmp_path)


def test_the_formula_is_the_kernel_s_reference() -> None:
    import onnxruntime

    from kernels.group_norm_silu.reference import group_norm_silu

    shape = making.Shape(8, 3, 5, 2, 1e-5, True, "float32")
    function = making.formula("kernel", shape, onnx.helper.make_opsetid("", 18))
    random = torch.Generator().manual_seed(0)
    sizes = {"x": (2, 8, 3, 5), "weight": (8,), "bias": (8,), "scale": (2, 8), "shift": (2, 8)}
    inputs = {name: torch.randn(size, generator=random) for name, size in sizes.items()}
    kinds = [onnx.helper.make_tensor_value_info(name, 1, value.shape) for name, value in inputs.items()]
    made = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("y", "mean", "rstd")]
    node = onnx.helper.make_node("kernel", list(inputs), ["y", "mean", "rstd"], domain=making.NAMESPACE)
    graph = onnx.helper.make_graph([node], "one", kinds, made)
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid(making.NAMESPACE, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, mean, rstd = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    expected = group_norm_silu(inputs["x"], inputs["weight"], inputs["bias"], 2, 1e-5, inputs["scale"], inputs["shift"])[1]
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-4, atol=1e-5)
    grouped = inputs["x"].reshape(2, 2, -1)
    np.testing.assert_allclose(mean, grouped.mean(2), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rstd, 1 / torch.sqrt(grouped.var(2, correction=0) + 1e-5), rtol=1e-4)
