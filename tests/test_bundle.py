"""A bundle that is whole opens and gives its golden outputs; any other is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import graphs, tiny_bundle

from flashlips_edge import onnx_shapes, run
from flashlips_edge.bundle import GRAPHS, Bundle, _read, write_manifest
from flashlips_edge.engines.build import Wanted
from flashlips_edge.engines.choice import open_engine
from flashlips_edge.engines.engine_folder import again
from flashlips_edge.errors import UserError

IMAGES = {name: model.SerializeToString() for name, model in graphs().items()}


@pytest.fixture()
def copy(tmp_path: Path) -> Path:
    """A bundle whose graphs are a few lines of arithmetic: opening does not run them."""
    folder = tmp_path / "bundle"
    (folder / "golden").mkdir(parents=True)
    for graph in GRAPHS:
        (folder / f"{graph}.onnx").write_bytes(IMAGES[graph])
    write_manifest(folder, fields())
    return folder


def fields() -> dict[str, Any]:
    return {
        "preset": "nano",
        "crop_size": 160,
        "lips": {"opening": [1.0] * 12, "closed": [0.0] * 12},
        "audio_to_lips": {"window": 50, "previous": 10, "references": 4, "emotion": 8},
        "graphs": {graph: {"file": f"{graph}.onnx"} for graph in GRAPHS},
        "licence": "Apache-2.0",
    }


@pytest.fixture(scope="module")
def copy_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the graphs of a bundle, whose manifest is written again and again."""
    folder = tmp_path_factory.mktemp("bundle")
    for graph in GRAPHS:
        (folder / f"{graph}.onnx").write_bytes(IMAGES[graph])
    return folder


@contextmanager
def suppress_user_error() -> Iterator[None]:
    """A refusal is one sentence; anything else is a failure."""
    try:
        yield
    except UserError as error:
        assert "\n" not in str(error)


def change(folder: Path, **entries: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


SHIPPED = ("nano", "nano-int8")
ASSETS = Path(run.__file__).parent / "assets"


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_shipped_graphs_give_their_golden_outputs(graph: str, name: str) -> None:
    bundle = Bundle.open(name)
    inputs, outputs = bundle.golden(graph)
    session = onnxruntime.InferenceSession(str(bundle.graph_path(graph)), providers=["CPUExecutionProvider"])
    given_outputs = session.run(list(outputs), inputs)
    tolerance = bundle.manifest["graphs"][graph]["golden_tolerance"]
    for value, expected in zip(given_outputs, outputs.values()):
        assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_bundle_is_trained_has_a_model_card_and_is_small(name: str) -> None:
    bundle = Bundle.open(name)
    assert bundle.manifest["trained"] and (bundle.folder / "MODEL_CARD.md").is_file()
    assert sum(p.stat().st_size for p in bundle.folder.rglob("*") if p.is_file()) <= 40e6


def test_a_whole_bundle_opens(copy: Path) -> None:
    bundle = Bundle.open(copy)
    assert bundle.crop_size == 160 and bundle.lips_opening.shape == (12,) and bundle.graph_path("editor").is_file()


def test_an_altered_file_is_refused(copy: Path) -> None:
    (copy / "editor.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match="editor.onnx was altered.*make bundle"):
        Bundle.open(copy)


def test_a_graph_that_is_altered_after_the_bundle_was_opened_is_not_loaded(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    (bundle.folder / "editor.onnx").write_bytes((bundle.folder / "lips_encoder.onnx").read_bytes())
    with pytest.raises(UserError, match=r"editor\.onnx was altered since the bundle was opened"):
        open_engine(bundle, "editor", 1)
    open_engine(bundle, "lips_encoder", 1)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "editor.onnx").unlink()
    with pytest.raises(UserError, match="editor.onnx is missing"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["manifest.json", "editor.onnx"])
def test_a_file_of_an_absurd_size_is_one_sentence(copy: Path, name: str) -> None:
    os.truncate(copy / name, 10**12)  # sparse: it takes no room
    with pytest.raises(UserError, match=rf"{name}.* cannot be read: it has 1000000000000 bytes, and \d+ are the most; make"):
        Bundle.open(copy)


@pytest.mark.parametrize("wrong", [[0.0] * 11, "wide", [float("inf")] * 12, None])
def test_lips_that_are_not_12_numbers_are_refused(copy: Path, wrong: Any) -> None:
    lips = {"opening": [1.0] * 12, "closed": [0.0] * 12}
    change(copy, lips=lips | {"spoken": [0.5] * 12})
    assert Bundle.open(copy).lips_spoken.tolist() == [0.5] * 12
    for name in ("opening", "closed", "spoken"):
        change(copy, lips=lips | {name: wrong})
        with pytest.raises(UserError, match=f"lips.{name} must be 12 numbers"):
            Bundle.open(copy)


def test_a_newer_schema_is_refused(copy: Path) -> None:
    change(copy, schema=2)
    with pytest.raises(UserError, match="schema 2 is newer than 1"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/hostname", "a/../../b", "..\\b"])
def test_no_name_leaves_the_bundle(copy: Path, name: str) -> None:
    change(copy, files={name: "0" * 64})
    with pytest.raises(UserError, match="outside the bundle"):
        Bundle.open(copy)


def test_no_link_leaves_the_bundle(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.onnx").write_bytes(b"editor")
    (copy / "editor.onnx").unlink()
    (copy / "editor.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(UserError, match="leads outside the bundle"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["a" * 5000, "loop.onnx"], ids=["too long", "a link to itself"])
def test_a_name_that_cannot_be_looked_up_is_one_sentence(copy: Path, name: str) -> None:
    (copy / "loop.onnx").symlink_to("loop.onnx")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = "0"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="cannot be read; make the bundle again"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"crop_size": 128}, r"latent_encoder takes image \[\*, 3, 160, 160\] instead of \[\*, 3, 128, 128\]"),
        ({"window": 40}, r"audio_to_lips takes noise \[\*, 50, 12\] instead of \[\*, 40, 12\]"),
        ({"previous": 0}, r"audio_to_lips takes previous_lips \[\*, 10, 12\] instead of \[\*, 0, 12\]"),
        ({"emotion": 9}, r"audio_to_lips takes emotion \[\*, 8\] instead of \[\*, 9\]"),
    ],
    ids=["crop_size", "window", "previous", "emotion"],
)
def test_a_manifest_that_lies_about_its_graphs_is_refused(
    copy: Path, change: dict[str, int], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = fields()
    manifest |= {key: value for key, value in change.items() if key in manifest}
    manifest["audio_to_lips"] |= {key: value for key, value in change.items() if key not in manifest}
    write_manifest(copy, manifest)
    with pytest.raises(UserError, match=f"{says}, which the manifest asks for; make the bundle again"):
        Bundle.open(copy)
    face, out = str(ASSETS / "avatar.mp4"), tmp_path / "result.mp4"
    words = ["--bundle", str(copy), "--avatar", face, "--audio", str(ASSETS / "speech.flac"), "--out", str(out)]
    assert run.main(words) == 2 and capsys.readouterr().err.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(("one", "other"), list(combinations(GRAPHS, 2)))
def test_graphs_that_changed_places_are_refused(copy: Path, one: str, other: str) -> None:
    manifest = fields()
    manifest["graphs"] |= {one: {"file": f"{other}.onnx"}, other: {"file": f"{one}.onnx"}}
    write_manifest(copy, manifest)
    with pytest.raises(UserError, match=rf"the graph ({one}|{other}) takes .* instead of .*, which the manifest asks for; make"):
        Bundle.open(copy)


def test_a_graph_of_another_size_than_the_others_is_refused(copy: Path) -> None:
    smaller = graphs()["editor"]
    smaller.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 48  # three references
    (copy / "editor.onnx").write_bytes(smaller.SerializeToString())
    write_manifest(copy, fields())
    with pytest.raises(UserError, match=r"editor takes reference_latents \[\*, 48, 20, 20\] instead of \[\*, 64, 20, 20\]"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "image",
    [b"", b"no graph", bytes(99), b"\x3a\xff\xff\xff\xff\x0f", IMAGES["editor"][:-9]],
    ids=["empty", "text", "zeros", "too long", "cut off"],
)
def test_what_is_no_graph_is_refused(copy: Path, image: bytes) -> None:
    (copy / "editor.onnx").write_bytes(image)
    write_manifest(copy, fields())
    with pytest.raises(UserError, match=r"editor\.onnx: (not an ONNX graph|the graph editor takes nothing)"):
        Bundle.open(copy)


@given(data=st.binary(max_size=64), at=st.integers(0, 2000))
def test_no_bytes_crash_the_reader_of_graphs(tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int) -> None:
    path = tmp_path_factory.getbasetemp() / "graph.onnx"
    path.write_bytes(IMAGES["editor"][:at] + data + IMAGES["editor"][at + len(data) :])
    with suppress(ValueError):
        onnx_shapes.read(path)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean nano"):
        Bundle.open("nanno")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150)
@given(key=st.sampled_from([*fields(), "schema", "files"]), value=JSON)
def test_no_manifest_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    manifest = {"schema": 1, **fields(), "files": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))
    try:
        Bundle.open(folder)
    except UserError as error:
        assert "\n" not in str(error)
    shutil.rmtree(folder)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every entry of nested tables and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


WHOLE = {
    "schema": 1,
    **fields(),
    "files": {f"{graph}.onnx": hashlib.sha256(IMAGES[graph]).hexdigest() for graph in GRAPHS},
    "targets": ["orin"],
    "quantisation": {"format": "int8"},
    "target": {"name": "orin", "engine": "tensorrt", "device": "Orin", "capability": 87, "builds_for": [], "batch": 4, "workspace_mb": 1}
    | {"golden_error": 0.05, "fallback_share": 0.05},
}
WHOLE["graphs"]["editor"] |= {"golden_tolerance": 0.01, "inputs": {"latent": ["B", 16, 20, 20]}, "nodes": {"conv": "int8"}}


@settings(max_examples=200)
@given(place=st.sampled_from(places(WHOLE)[1:]), value=JSON | st.just(math.inf) | st.just(10**30))
def test_no_entry_anywhere_crashes_who_uses_the_bundle(copy_once: Path, place: tuple[Any, ...], value: Any) -> None:
    manifest = inner = json.loads(json.dumps(WHOLE))
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (copy_once / "manifest.json").write_text(json.dumps(manifest))
    with suppress_user_error():
        bundle = Bundle.open(copy_once)
        assert bundle.lips_opening.shape == bundle.lips_closed.shape == (12,)
        assert np.isfinite([*bundle.lips_opening, *bundle.lips_closed]).all() and bundle.crop_size > 0
        for graph in GRAPHS:
            assert isinstance(bundle.precision(graph), str) and bundle.graph_path(graph).parent == copy_once
        assert all(isinstance(target, str) for target in bundle.targets)
        assert all(0 <= bundle.manifest["audio_to_lips"][name] <= 10_000 for name in ("window", "previous", "emotion"))
        assert str(copy_once) in again(bundle) or "TARGET=" in again(bundle)
        Wanted.of(bundle)


@given(data=st.binary(max_size=64))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(UserError, match="manifest"):
        _read(folder)
    shutil.rmtree(folder)
