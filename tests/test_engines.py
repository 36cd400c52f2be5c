"""Engines on a GPU, against stand-ins that really copy and compute (standins.py); the compiler of TensorRT-RTX is the real one."""

from __future__ import annotations

import ctypes
import json
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standins import Driver, Engine, tensorrt
from test_quantize_bundle import convolutional

from flashlips_edge.bundle import GRAPHS, Bundle, write_manifest
from flashlips_edge.engines import build as device_build
from flashlips_edge.engines import choice, engine_folder
from flashlips_edge.engines.cuda import Device, DeviceArray
from flashlips_edge.engines.engine_folder import EngineFolder
from flashlips_edge.engines.layers import compare
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
from flashlips_edge.engines.plans import compile_plan, shape_ranges
from flashlips_edge.engines.tensorrt import SHAPES_KEPT, TensorRtEngine
from flashlips_edge.errors import UserError
from flashlips_edge.talking.networks import Networks

WANTED = {
    "name": "orin",
    "device": "Jetson AGX Orin 64 GB",
    "engine": "tensorrt",
    "capability": 87,
    "builds_for": [],
    "batch": 4,
    "workspace_mb": 64,
    "golden_error": 0.01,
    "fallback_share": 0.05,
}


def orin_bundle(folder: Path, make: Callable[[Path], Bundle] = convolutional, **wanted: Any) -> Bundle:
    """Small networks as a bundle for an Orin, with golden outputs as fp32 gives them."""
    bundle = make(folder)
    random = np.random.default_rng(0)
    networks, entries = Networks(bundle), {}
    (folder / "golden").mkdir()
    for name in GRAPHS:
        engine = networks.engine(name)
        free = {"4T": 200, "T": 50, "B": 2, "rows": 20}
        shapes = {key: [free.get(axis, axis) for axis in shape] for key, shape in engine.input_shapes.items()}
        inputs = {key: random.random(shape).astype(np.float32) for key, shape in shapes.items()}
        arrays = {f"in.{key}": value for key, value in inputs.items()} | {f"out.{k}": v for k, v in engine.run(inputs).items()}
        np.savez(folder / "golden" / f"{name}.npz", **arrays)
        declared = {key: list(shape) for key, shape in engine.input_shapes.items()}
        entries[name] = {
            **bundle.manifest["graphs"][name],
            "inputs": declared,
            "nodes": {"conv": "fp32"} if name == "latent_encoder" else {},
        }
    fields = {key: value for key, value in bundle.manifest.items() if key not in ("schema", "files")}
    write_manifest(folder, {**fields, "graphs": entries, "target": {**WANTED, **wanted}})
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return orin_bundle(tmp_path_factory.mktemp("orin") / "bundle").folder


@pytest.fixture()
def bundle(pristine: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(pristine, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@pytest.fixture()
def driver() -> Driver:
    return Driver()


@pytest.fixture()
def device(driver: Driver) -> Iterator[Device]:
    with Device(driver) as device:
        yield device
    assert not driver.held, "the device kept something"


def load(bundle: Bundle, graph: str, device: Device, library: Any) -> TensorRtEngine:
    plan = compile_plan(library, bundle.graph_path(graph).read_bytes(), graph, shape_ranges(bundle, graph, 4), 64)
    return TensorRtEngine(device, library, plan.image)


def image(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, 3, 160, 160)).astype(np.float32)


def test_an_engine_gives_what_the_graph_gives_and_takes_memory_once(bundle: Bundle, device: Device, driver: Driver) -> None:
    engine = load(bundle, "latent_encoder", device, tensorrt())
    reference = OnnxRuntimeEngine(bundle.graph_path("latent_encoder"))
    assert engine.input_shapes == {"image": ("free", 3, 160, 160)}
    taken = driver.count["cuMemAlloc"]
    for batch, seed in ((1, 0), (1, 1), (4, 2), (1, 3), (5, 4)):
        given = image(batch, seed)
        outputs = engine.run({"image": given})
        np.testing.assert_allclose(outputs["latent"], reference.run({"image": given})["latent"], rtol=1e-5, atol=1e-6)
    assert driver.count["cuMemAlloc"] == taken
    assert (driver.count["cuStreamBeginCapture"], driver.count["cuGraphLaunch"]) == (2, 4)  # a graph for each shape, from its second run on
    assert engine.runs == 6  # five frames are four and one


def test_what_a_run_gave_is_the_caller_s(bundle: Bundle, device: Device) -> None:
    engine = load(bundle, "latent_encoder", device, tensorrt())
    first = engine.run({"image": image(1)})["latent"]
    kept = first.copy()
    engine.run({"image": image(1, 7)})
    assert np.array_equal(first, kept)


def test_a_chain_stays_on_the_device(bundle: Bundle, device: Device, driver: Driver) -> None:
    library = tensorrt()
    encoder, decoder = (load(bundle, name, device, library) for name in ("latent_encoder", "latent_decoder"))
    given = image(2)
    expected = decoder.run({"edited_latent": encoder.run({"image": given})["latent"]})["image"]
    on_device = device.array(given.shape, np.float32)
    stream = device.shared_stream()
    device.copy_in(on_device, given, stream)
    before = driver.count["cuMemcpyDtoHAsync"]
    latent = encoder.run_on_device({"image": on_device})["latent"]
    picture = decoder.run_on_device({"edited_latent": latent})["image"]
    assert driver.count["cuMemcpyDtoHAsync"] == before
    np.testing.assert_array_equal(device.copy_out(picture, stream), expected)


def test_arrays_of_others_are_taken_by_their_interface(bundle: Bundle, device: Device) -> None:
    class Foreign:  # what CuPy, pycuda and torch show
        def __init__(self, array: np.ndarray, strides: tuple[int, ...] | None = None) -> None:
            self.array = array
            shape, data = array.shape, (array.ctypes.data, False)
            self.__cuda_array_interface__ = {"data": data, "shape": shape, "typestr": "<f4", "strides": strides, "version": 3}

    engine = load(bundle, "latent_encoder", device, tensorrt())
    given = image(1)
    latent = engine.run_on_device({"image": Foreign(given, given.strides)})["latent"]
    expected = engine.run({"image": given})["latent"]
    np.testing.assert_array_equal(device.copy_out(latent, device.shared_stream()), expected)
    with pytest.raises(ValueError, match="input image must be contiguous"):
        engine.run_on_device({"image": Foreign(given, given.strides[::-1])})
    with pytest.raises(ValueError, match="must be an array on the GPU, not ndarray"):
        engine.run_on_device({"image": given})


def test_onnx_runtime_takes_and_gives_arrays_where_they_are(bundle: Bundle) -> None:
    encoder, decoder = (OnnxRuntimeEngine(bundle.graph_path(name)) for name in ("latent_encoder", "latent_decoder"))
    given = image(2)
    latent = encoder.run_on_device({"image": DeviceArray(given.ctypes.data, given.shape, given.dtype)})["latent"]
    result = decoder.run_on_device({"edited_latent": latent})["image"].__cuda_array_interface__
    expected = decoder.run({"edited_latent": encoder.run({"image": given})["latent"]})["image"]
    size = int(np.prod(result["shape"]))
    at = np.frombuffer((ctypes.c_float * size).from_address(result["data"][0]), np.float32).reshape(result["shape"])
    np.testing.assert_array_equal(at, expected)
    assert encoder.runs == 2 and encoder.seconds > 0
    with pytest.raises(ValueError, match=r"input edited_latent has shape \(2, 3, 160, 160\)"):
        decoder.run_on_device({"edited_latent": DeviceArray(given.ctypes.data, given.shape, given.dtype)})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, r"inputs are \[\], the graph takes \['image'\]"),
        ({"image": image(1)[:, :, :80]}, r"shape \(1, 3, 80, 160\), the engine takes float32 from \(1, .*\) to \(4, "),
        ({"image": image(1).astype(np.float64)}, "input image is float64"),
        ({"image": image(1)[0]}, r"of shape \(3, 160, 160\)"),
    ],
    ids=["missing", "size", "type", "rank"],
)
def test_a_wrong_input_is_named(inputs: dict[str, np.ndarray], words: str, bundle: Bundle, device: Device) -> None:
    with pytest.raises(ValueError, match=words):
        load(bundle, "latent_encoder", device, tensorrt()).run(inputs)


def test_graphs_of_many_shapes_are_bounded(bundle: Bundle, device: Device, driver: Driver) -> None:
    engine = load(bundle, "speech_encoder", device, tensorrt())
    reference = OnnxRuntimeEngine(bundle.graph_path("speech_encoder"))
    for steps in (*np.repeat(range(1, 9), 2), 1, 1):  # a shape is captured when it comes again
        audio = np.random.default_rng(steps).random((1, 4 * steps, 80)).astype(np.float32)
        outputs = engine.run({"audio": audio})["speech"]
        np.testing.assert_allclose(outputs, reference.run({"audio": audio})["speech"], rtol=1e-5)
    assert sum(isinstance(each, list) for each in driver.held.values()) == SHAPES_KEPT


def test_what_an_engine_held_is_given_back_when_nobody_holds_the_engine(bundle: Bundle, device: Device, driver: Driver) -> None:
    held = []
    for _ in range(4):
        engine = load(bundle, "latent_encoder", device, tensorrt())
        for _ in range(2):  # the second run is captured
            engine.run({"image": image(1)})
        del engine
        device.array((1,), np.float32)
        held.append((len(driver.held), driver.memory))
    assert len(set(held)) == 1


def test_a_result_on_the_gpu_outlives_its_engine(bundle: Bundle, device: Device, driver: Driver) -> None:
    engine = load(bundle, "latent_encoder", device, tensorrt())
    picture, given = image(1), device.array((1, 3, 160, 160), np.float32)
    device.copy_in(given, picture, device.shared_stream())
    latent, expected = engine.run_on_device({"image": given})["latent"], OnnxRuntimeEngine(bundle.graph_path("latent_encoder"))
    del engine
    device.array((1,), np.float32)
    found = device.copy_out(latent, device.shared_stream())
    np.testing.assert_allclose(found, expected.run({"image": picture})["latent"], rtol=1e-5, atol=1e-6)


def test_a_context_that_gets_no_memory_is_one_sentence(bundle: Bundle, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "create_execution_context", lambda self: None)
    with pytest.raises(UserError, match="tensorrt cannot run the engine: no memory is left"):
        load(bundle, "latent_encoder", device, tensorrt())


def test_memory_that_is_not_there_is_one_sentence(bundle: Bundle) -> None:
    with (
        Device(Driver(memory=100_000)) as device,
        pytest.raises(UserError, match=r"Orin has no \d+ MB of memory left .*: end other programs"),
    ):
        load(bundle, "latent_encoder", device, tensorrt())


@pytest.mark.parametrize(
    ("driver", "words"),
    [(Driver(status=100), "does not start .CUDA error 100.: check that a GPU is there")],
)
def test_without_a_gpu_nothing_of_tensorrt_is_made(driver: Driver, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Device(driver)


def built(bundle: Bundle, device: Device, library: Any) -> list[str]:
    said: list[str] = []
    device_build.build(bundle, library, device, said.append)
    return said


def test_the_device_builds_checks_and_keeps_its_engine(bundle: Bundle, device: Device) -> None:
    library = tensorrt()
    said = built(bundle, device, library)
    assert any(line.startswith("editor: ") and "golden error" in line for line in said)
    engine = EngineFolder.open(bundle)
    assert engine is not None and engine.graphs == GRAPHS
    engine.check("10.3.0", "Orin", 87)
    assert engine.manifest["graphs"]["latent_encoder"]["precision"]["fp32"] >= 1
    assert "built by a stand-in" in (bundle.folder / "engine" / "build.log").read_text()
    Bundle.open(bundle.folder)  # is still whole
    loaded = TensorRtEngine(device, library, engine.plan("editor"))
    assert device_build.golden_error(bundle, "editor", loaded) < 1e-4
    built(bundle, device, library)
    assert library.timings_given[0] == b"" and library.timings_given[len(GRAPHS)].startswith(b"timed")  # the second build begins with them
    assert len(list((bundle.folder / "engine").glob("*.plan"))) == len(GRAPHS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spoil": 0.2}, "the engine differs from the bundle's golden outputs by 20.0% of the largest, and 1% is allowed"),
        ({"spoil": float("nan")}, "by inf% of the largest"),
        ({"refuses": "no importer for GroupNorm"}, "tensorrt 10.3.0 cannot read it: no importer for GroupNorm"),
    ],
    ids=["wrong", "not a number", "refused"],
)
def test_an_engine_that_is_not_good_is_not_written(change: dict[str, Any], words: str, bundle: Bundle, device: Device) -> None:
    library = tensorrt()
    built(bundle, device, library)
    before = (bundle.folder / "engine" / "manifest.json").read_bytes()
    vars(library).update(change)
    with pytest.raises(UserError, match=words):
        built(bundle, device, library)
    assert (bundle.folder / "engine" / "manifest.json").read_bytes() == before


def test_layers_that_fell_back_are_named_and_too_many_refused(tmp_path: Path, pristine: Path, device: Device) -> None:
    shutil.copytree(pristine, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    manifest["graphs"]["latent_encoder"]["nodes"] = {"conv": "int8"}
    fields = {key: value for key, value in manifest.items() if key not in ("schema", "files")}
    write_manifest(tmp_path / "bundle", fields)
    bundle = Bundle.open(tmp_path / "bundle")
    with pytest.raises(UserError, match="1 of 1 layers were built in another precision than asked for, and 5% is allowed"):
        built(bundle, device, tensorrt())
    manifest["target"]["fallback_share"] = 1.0
    write_manifest(tmp_path / "bundle", {**fields, "target": manifest["target"]})
    bundle = Bundle.open(tmp_path / "bundle")
    assert "latent_encoder: conv was built in fp32, int8 was asked for" in built(bundle, device, tensorrt())
    found = EngineFolder.open(bundle)
    assert found is not None and found.manifest["graphs"]["latent_encoder"]["fallen"] == {"conv": "fp32"}


def test_another_gpu_is_refused_before_anything_is_built(bundle: Bundle) -> None:
    with (
        Device(Driver(90, "NVIDIA H200")) as device,
        pytest.raises(UserError, match="is for Jetson AGX Orin 64 GB .sm_87. and this GPU, NVIDIA H200"),
    ):
        built(bundle, device, tensorrt())
    assert not (bundle.folder / "engine").exists()


def test_a_build_that_was_killed_leaves_a_bundle_that_runs(bundle: Bundle) -> None:
    (bundle.folder / "engine").mkdir()
    (bundle.folder / "engine" / "timing.cache").write_bytes(b"timed")
    assert EngineFolder.open(bundle) is None
    assert isinstance(choice.open_engine(bundle, "latent_encoder", 1), OnnxRuntimeEngine)
    with pytest.raises(UserError, match="not a readable manifest"):
        EngineFolder.open(replace(bundle, signed_engine="of the engine whose signature was checked"))


def change(bundle: Bundle, entries: dict[str, Any]) -> None:
    path = bundle.folder / "engine" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_what_does_not_match_is_refused_with_the_command_that_rebuilds(bundle: Bundle, device: Device) -> None:
    built(bundle, device, tensorrt())
    engine = EngineFolder.open(bundle)
    assert engine is not None
    again = f"build it again with python -m flashlips_edge.engines.build {bundle.folder}"
    for arguments, words in [
        (("10.16.0", "Orin", 87), "was built by tensorrt 10.3.0 and this is 10.16.0"),
        (("10.3.0", "NVIDIA H200", 90), "is for sm_87 and this GPU, NVIDIA H200, is sm_90"),
        (("10.3.0", "Orin Nano", 87), "was built on the GPU Orin and this is Orin Nano"),
    ]:
        with pytest.raises(UserError) as error:
            engine.check(*arguments)
        assert words in str(error.value) and str(error.value).endswith(again) and "\n" not in str(error.value)
    plan = bundle.folder / "engine" / engine.manifest["graphs"]["editor"]["file"]
    whole = plan.read_bytes()
    for wrong in (whole[:-100], whole[:-1] + b"x"):
        plan.write_bytes(wrong)
        with pytest.raises(UserError, match="is cut short or altered.*build it again"):
            engine.plan("editor")
    plan.unlink()
    with pytest.raises(UserError, match="is missing; build it again"):
        engine.plan("editor")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"schema": 2}, "schema 2 is newer than 1, the newest this version reads; update flashlips-edge, or build it again"),
        ({"bundle": "0" * 64}, "the engine was built from another bundle; build it again"),
        ({"library": "os"}, "the entry library is missing or malformed"),
        ({"graphs": {"editor": {"file": 3}}}, "the entry graphs.editor is missing or malformed"),
        ({"capabilities": None}, "the entry capabilities is missing or malformed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_manifest_that_is_not_right_is_refused(entries: dict[str, Any], words: str, bundle: Bundle, device: Device) -> None:
    built(bundle, device, tensorrt())
    change(bundle, entries)
    with pytest.raises(UserError, match=words):
        EngineFolder.open(bundle)


@pytest.mark.parametrize("name", ["../editor.onnx", "/etc/hostname", "..\\a", "link.plan"])
def test_no_engine_file_lies_outside(name: str, bundle: Bundle, device: Device, tmp_path: Path) -> None:
    built(bundle, device, tensorrt())
    (bundle.folder / "engine" / "link.plan").symlink_to(tmp_path / "anything")
    engine = EngineFolder.open(bundle)
    assert engine is not None
    engine.manifest["graphs"]["editor"]["file"] = name
    with pytest.raises(UserError, match="outside the folder; do not use this engine"):
        engine.plan("editor")


def test_a_bundle_without_an_engine_has_none(bundle: Bundle) -> None:
    assert EngineFolder.open(bundle) is None


@pytest.fixture()
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """This machine has an Orin's GPU and TensorRT: the stand-ins."""
    library = tensorrt()
    device = Device(Driver())
    monkeypatch.setattr(choice, "_device", lambda: device)
    monkeypatch.setattr(choice, "load_library", lambda name: library)
    monkeypatch.setattr(choice, "_loaded", OrderedDict())
    choice._say.cache_clear()
    return library


def test_the_run_path_takes_the_engine_that_was_built(bundle: Bundle, device: Device, here: Any) -> None:
    built(bundle, device, tensorrt())
    networks, plain = Networks(bundle), OnnxRuntimeEngine(bundle.graph_path("latent_encoder"))
    crops = np.random.default_rng(0).integers(0, 256, (6, 160, 160, 3)).astype(np.uint8)
    assert isinstance(networks.engine("latent_encoder"), TensorRtEngine)
    expected = plain.run({"image": np.ascontiguousarray(crops.transpose(0, 3, 1, 2), dtype=np.float32) / 255})["latent"]
    np.testing.assert_allclose(networks.encode(crops), expected, rtol=1e-4, atol=1e-5)
    assert Networks(bundle).engine("latent_encoder") is networks.engine("latent_encoder")


def test_an_engine_that_answers_wrongly_today_is_refused(bundle: Bundle, device: Device, here: Any) -> None:
    built(bundle, device, tensorrt())
    here.spoil = 0.5
    with pytest.raises(
        UserError, match=r"differs from its golden outputs by 50.0% of the largest, and 1% is allowed; build it again with python"
    ):
        Networks(bundle).engine("editor")


def test_an_engine_of_another_tensorrt_is_refused(bundle: Bundle, device: Device, here: Any) -> None:
    built(bundle, device, tensorrt("8.6.1"))
    with pytest.raises(UserError, match="was built by tensorrt 8.6.1 and this is 10.3.0; build it again"):
        Networks(bundle).engine("editor")


def test_without_an_engine_the_networks_run_elsewhere_and_it_is_said(
    bundle: Bundle, here: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(Networks(bundle).engine("editor"), OnnxRuntimeEngine)
    Networks(bundle).engine("latent_encoder")
    (said,) = [record.message for record in caplog.records]
    assert "run on the CPU: no TensorRT engine was built for them; build it again with python -m flashlips_edge.engines.build" in said
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    Networks(bundle).engine("lips_encoder")
    assert "run on the GPU through ONNX Runtime" in caplog.records[-1].message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(key=st.sampled_from([*engine_folder.ENTRIES, "seconds", "built"]), value=JSON)
def test_no_manifest_crashes_the_reader(pristine: Path, key: str, value: Any) -> None:
    bundle = Bundle(pristine, json.loads((pristine / "manifest.json").read_text()))
    entry = {"file": "editor.plan", "sha256": "0", "precision": {}}
    manifest: dict[str, Any] = {"schema": 1, "bundle": engine_folder.digest_of(bundle), "library": "tensorrt", "version": "10.3"}
    manifest |= {"gpu": "Orin", "capabilities": [87], "driver": 12060, "graphs": {"editor": entry}, key: value}
    (pristine / "engine").mkdir(exist_ok=True)
    try:
        (pristine / "engine" / "manifest.json").write_text(json.dumps(manifest))
        engine = EngineFolder.open(bundle)
        assert engine is not None
        for graph in engine.graphs:
            engine.plan(graph)
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        shutil.rmtree(pristine / "engine")


def test_the_inspector_s_words_become_precisions() -> None:
    def layer(node: str, kind: str) -> dict[str, Any]:
        return {"Name": node, "Inputs": [{"Format/Datatype": kind}], "Metadata": f"[ONNX Layer: {node}][ONNX Layer: {node}.bias]"}

    inspected = {
        "Layers": [
            layer("a", "Thirty-two wide channel vectorized row major Int8 format"),
            layer("b", "Channel major FP16 format where channel % 4 == 0"),
            layer("c", "Row major linear FP32"),
            layer("d", "FP8"),
            "a bare name",
            {"Name": "e", "Inputs": []},
        ]
    }
    built = compare(json.dumps(inspected), {"a": "int8", "b": "int8", "c": "fp16", "d": "fp8", "z": "int8"})
    assert built.counts == {"fp16": 1, "fp32": 1, "fp8": 1, "int8": 1}
    assert built.fallen == {"b": "fp16", "c": "fp32"} and built.unknown == ("z",) and built.share == 0.4
    with pytest.raises(ValueError, match="names no layers"):
        compare("{}", {})


@pytest.mark.parametrize("graph", ["latent_encoder", "editor", "latent_decoder", "speech_encoder", "audio_to_lips"])
def test_tensorrt_rtx_itself_compiles_each_graph_for_every_chip(graph: str, bundle: Bundle) -> None:
    library = pytest.importorskip("tensorrt_rtx")
    ranges = shape_ranges(bundle, graph, 4)
    plan = compile_plan(library, bundle.graph_path(graph).read_bytes(), graph, ranges, 64, ("SM86", "SM89", "SM120"))
    assert len(plan.image) > 1000 and not plan.timings


def test_a_graph_that_tensorrt_rtx_cannot_read_is_refused_in_its_words() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    with pytest.raises(UserError, match="graph editor: tensorrt_rtx .* cannot read it: "):
        compile_plan(library, b"not a graph", "editor", {}, 64, ("SM86",))


def test_arrays_of_the_device_show_what_others_take() -> None:
    shown = DeviceArray(4096, (2, 3), np.dtype(np.float32)).__cuda_array_interface__
    assert shown == {"data": (4096, False), "shape": (2, 3), "typestr": "<f4", "strides": None, "version": 3}
