"""An engine by torch-tensorrt: what it is asked for, and that its engine is held to the same golden outputs. The package is a stand-in,
which makes the stand-in's engines (standins.py) of what it is given."""

from __future__ import annotations

import copy
import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from standins import HEADER, Driver, tensorrt
from test_engines import WANTED

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install '.[build]'")

from flashlips_edge.bundle import GRAPHS, Bundle, write_manifest  # noqa: E402
from flashlips_edge.engines import build as device_build  # noqa: E402
from flashlips_edge.engines.cuda import Device  # noqa: E402
from flashlips_edge.engines.engine_folder import EngineFolder  # noqa: E402
from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models import presets  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training.export import export  # noqa: E402
from targets import build as building  # noqa: E402
from targets import from_torch  # noqa: E402


@pytest.fixture()
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """Networks as initialised, for a GPU."""
    preset = copy.deepcopy(load_preset("nano"))
    preset["editor"] |= {"widths": [16, 32], "blocks": [1, 1]}
    preset["audio_to_lips"] |= {"layers": 1, "steps": 2}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(preset))
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    torch.manual_seed(0)
    folder = export("small", None, tmp_path / "bundle")
    fields = {key: value for key, value in json.loads((folder / "manifest.json").read_text()).items() if key not in ("schema", "files")}
    write_manifest(folder, {**fields, "target": {**WANTED, "golden_error": 0.02}})
    return Bundle.open(folder)


@pytest.fixture()
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A torch_tensorrt that works like the real one as far as it is asked; `asked` is what for."""
    library: Any = ModuleType("torch_tensorrt")
    library.__version__, library.asked = "2.14.0+cu130", []

    def given(shape: Any = None, dtype: Any = None, min_shape: Any = None, opt_shape: Any = None, max_shape: Any = None) -> Any:
        assert dtype is torch.float32 and (shape is None) != (min_shape is None)
        return SimpleNamespace(ranges=[list(each or shape) for each in (min_shape, opt_shape, max_shape)])

    def convert(exported: Any, arg_inputs: Any, workspace_size: int, arg_input_binding_names: Any, output_binding_names: str) -> bytes:
        network, inputs = exported
        assert list(inputs) == list(arg_inputs) and isinstance(arg_input_binding_names, tuple)
        library.asked.append((output_binding_names, network.dtype, workspace_size))
        examples = tuple(torch.zeros(each.ranges[1]) for each in arg_inputs)
        names = [*arg_input_binding_names, output_binding_names]
        free = {
            name: {axis: f"{name}_{axis}" for axis, (least, _, most) in enumerate(zip(*each.ranges)) if least != most}
            for name, each in zip(names, arg_inputs)
        }
        written = io.BytesIO()
        torch.onnx.export(
            network, examples, written, input_names=names[:-1], output_names=names[-1:], dynamic_axes=free | {names[-1]: {0: "B"}},
            opset_version=18, dynamo=False,
        )  # fmt: skip
        about = {"profile": {name: each.ranges for name, each in zip(names, arg_inputs)}, "detailed": True}
        return HEADER + json.dumps(about).encode() + b"\n" + written.getvalue()

    library.Input = given
    library.dynamo = SimpleNamespace(
        trace=lambda network, arg_inputs: (network, arg_inputs), convert_exported_program_to_serialized_trt_engine=convert
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", library)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    return library


def built(bundle: Bundle, library: Any, rest: str) -> EngineFolder:
    compiler = from_torch.compiler(library, bundle, rest, None)
    with Device(Driver()) as device:
        device_build.build(bundle, tensorrt("10.16.0"), device, lambda line: None, compiler)
    engine = EngineFolder.open(bundle)
    assert engine is not None
    return engine


def test_its_engine_is_checked_and_kept_like_any_other(bundle: Bundle, library: Any) -> None:
    engine = built(bundle, library, "fp16")
    assert engine.graphs == GRAPHS and engine.manifest["compiler"] == "torch_tensorrt 2.14.0+cu130"
    assert engine.manifest["library"] == "tensorrt" and all(entry["golden_error"] < 0.02 for entry in engine.manifest["graphs"].values())
    outputs = [next(iter(bundle.manifest["graphs"][name]["outputs"])) for name in GRAPHS]
    assert library.asked == [(output, torch.float16, WANTED["workspace_mb"] << 20) for output in outputs]


def test_an_engine_of_other_networks_is_refused(bundle: Bundle, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    torch.nn.init.normal_(torch.empty(3))  # another place in the generator than the export's
    with pytest.raises(UserError, match="the engine differs from the bundle's golden outputs"):
        built(bundle, library, "fp32")
    assert not (bundle.folder / "engine").exists()


def test_what_it_cannot_build_is_said_in_its_words(bundle: Bundle, library: Any) -> None:
    def refuse(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("no converter for\n aten.foo")

    library.dynamo.convert_exported_program_to_serialized_trt_engine = refuse
    with pytest.raises(UserError, match=r"graph latent_encoder: torch_tensorrt 2.14.0\+cu130 cannot build it: no converter for aten.foo"):
        built(bundle, library, "fp16")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "torch_tensorrt is missing: on the server, pip install torch-tensorrt"),
        ("import tensorrt_of_nobody", "tensorrt_of_nobody is missing"),
        (
            "print('what it prints')\nraise Exception('libnvinfer.so.11 is\\n not there')",
            r"does not import \(libnvinfer.so.11 is not there\)",
        ),
        ("__version__ = '2.8.0'", "torch_tensorrt is 2.8.0, and 2.14 or later is needed"),
    ],
    ids=["missing", "its own need", "its libraries", "old"],
)
def test_without_the_package_it_says_so(
    text: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "torch_tensorrt", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    if text is None:
        monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    else:
        (tmp_path / "torch_tensorrt.py").write_text(text)
    with pytest.raises(UserError, match=f"--torch-tensorrt: .*{words}"):
        from_torch.load()
    assert capsys.readouterr().out == ""
    sys.modules.pop("torch_tensorrt", None)


def test_it_is_for_the_device_itself(library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = building.ordered("datacentre", "nano", "none", "none", None, tmp_path)
    monkeypatch.setattr(building, "_is_device", lambda target: False)
    with pytest.raises(UserError, match="builds where the engine is to run, on H200 SXM, and this is another machine"):
        building.torch_compiler(order)
    monkeypatch.setattr(building, "_is_device", lambda target: True)
    assert callable(building.torch_compiler(order))
    with pytest.raises(UserError, match="it knows nothing of --plugins; leave one of them away"):
        building.torch_compiler(building.with_plugins(order))
    with pytest.raises(UserError, match="target cpu has the engine onnxruntime"):
        building.torch_compiler(building.ordered("cpu", "nano", "none", "none", None, tmp_path))
