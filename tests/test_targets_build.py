"""A device's bundle as a user meets it: whole or as it was, the same bytes from the same inputs, and one sentence for a mistake.

The networks are small and as initialised; low precision has tests of its own (test_quantize_bundle.py), and so have kernels."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install '.[build]'")

from flashlips_edge.bundle import GRAPHS, Bundle, write_manifest  # noqa: E402
from flashlips_edge.engines import build as device_build  # noqa: E402
from flashlips_edge.engines import engine_folder  # noqa: E402
from flashlips_edge.engines.choice import open_engine  # noqa: E402
from flashlips_edge.engines.engine_folder import EngineFolder  # noqa: E402
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.evaluation.recordings import Recording  # noqa: E402
from flashlips_edge.files import write_bytes  # noqa: E402
from flashlips_edge.folders import only_one, put  # noqa: E402
from flashlips_edge.models import presets  # noqa: E402
from flashlips_edge.models.networks import networks  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training.checkpoint import save_weights  # noqa: E402
from quantize import build as quantisation  # noqa: E402
from quantize import calibration  # noqa: E402
from targets import build as building  # noqa: E402
from targets import drawn, remote  # noqa: E402
from targets.stages import Stages  # noqa: E402

NANO = load_preset("nano")
_real_export = building._export


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights of preset small, the only one there is in this module."""
    preset = copy.deepcopy(NANO)
    preset["autoencoder"] |= {"widths": [8, 8, 16], "encoder_blocks": [0, 1, 0], "decoder_blocks": [0, 1, 0]}
    preset["editor"] |= {"widths": [16, 32], "blocks": [1, 1]}
    preset["editor_transformer"] |= {"stem_width": 16, "width": 32, "layers": 1, "heads": 2}
    preset["speech_encoder"] |= {"blocks": 1}
    preset["audio_to_lips"] |= {"layers": 1, "steps": 2}
    folder = tmp_path_factory.mktemp("presets")
    (folder / "small.yaml").write_text(yaml.safe_dump(preset))
    torch.manual_seed(0)
    for name, model in networks(preset).items():
        save_weights(folder / "weights" / f"{name}.safetensors", model)
    (folder / "weights" / "lips.json").write_text(json.dumps({"opening": [1.0] + [0.0] * 11, "closed": [0.0] * 12}))
    (folder / "weights" / "MODEL_CARD.md").write_text("small\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "FOLDER", folder)
        yield folder / "weights"


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path | None, Path]:
    """What the export of these weights, and of networks as initialised, gives: once, since it takes seconds."""
    folder, result = tmp_path_factory.mktemp("exported"), {}
    for name, given in (("trained", weights), ("initialised", None)):
        result[given] = folder / name
        building._export(building.ordered("cpu", "small", str(given or "none"), "none", None, folder), folder / name)
    return result


@pytest.fixture(autouse=True)
def quick(exported: dict[Path | None, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Export copies what was exported; kernels have tests of their own: here a cubin is a few bytes."""

    def kernels(order: building.Order, place: Path) -> None:
        write_bytes(place / "toy.cubin", b"toy")
        write_bytes(place / "manifest.json", json.dumps({"kernels": [{"name": "toy"}]}).encode())

    monkeypatch.setattr(building, "_kernels", kernels)
    monkeypatch.setattr(building, "_export", lambda order, place: shutil.copytree(exported[order.weights], place))


def make(target: str, weights: Path | None, out: Path) -> tuple[Bundle, bool, list[str]]:
    said: list[str] = []
    order = building.ordered(target, "small", str(weights) if weights else "none", "none", None, out)
    return *building.build(order, said.append), said


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture()
def cpu(weights: Path, tmp_path: Path) -> Path:
    """The folder of a finished build for target cpu."""
    make("cpu", weights, tmp_path / "cpu")
    return tmp_path / "cpu"


def test_what_is_exported_is_the_same_every_time(weights: Path, exported: dict[Path | None, Path], tmp_path: Path) -> None:
    _real_export(building.ordered("cpu", "small", str(weights), "none", None, tmp_path), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(exported[weights])


def test_the_bundle_is_whole_and_says_what_it_is_for(cpu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Bundle.open(cpu / "cpu" / "small")
    assert bundle.targets == ("cpu",) and bundle.manifest["trained"]
    assert {"LICENSE", "MODEL_CARD.md", *(f"golden/{graph}.npz" for graph in GRAPHS)} <= bundle.manifest["files"].keys()
    assert set(bundle.manifest["graphs"]["editor"]["nodes"].values()) == {"fp32"}
    building.summary(bundle, False, 3.0)
    building.rest(building.find_target("cpu"), bundle)
    printed = capsys.readouterr().out
    assert str(bundle.folder) in printed and " MB, layers " in printed and "3 s" in printed
    assert f"it runs here: python -m flashlips_edge.run --bundle {bundle.folder}" in printed


def test_a_second_build_says_so_and_changes_nothing(cpu: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (cpu / "cpu" / "small").rglob("*")}
    bundle, cached, said = make("cpu", weights, cpu)
    building.summary(bundle, cached, 0.4)
    assert cached and not said and "as it was, its inputs are the same" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (cpu / "cpu" / "small").rglob("*")} == before


def test_the_same_inputs_give_the_same_bytes_elsewhere(cpu: Path, weights: Path, tmp_path: Path) -> None:
    bundle, cached, said = make("cpu", weights, tmp_path / "other")
    assert not cached and said[0] == "[1/3] export-small"
    assert contents(bundle.folder) == contents(cpu / "cpu" / "small")
    assert str(tmp_path) not in (bundle.folder / "manifest.json").read_text()


def test_a_result_that_was_altered_is_made_again(weights: Path, tmp_path: Path) -> None:
    bundle, _, _ = make("cpu", weights, tmp_path)
    before = contents(bundle.folder)
    (bundle.folder / "editor.onnx").write_bytes(b"x")
    _, cached, said = make("cpu", weights, tmp_path)
    assert not cached and any(line.endswith("export-small: as before") for line in said)
    assert contents(bundle.folder) == before


def test_other_weights_give_another_bundle(cpu: Path, weights: Path, tmp_path: Path) -> None:
    other, _, _ = make("cpu", None, tmp_path / "other")
    assert not other.manifest["trained"]
    assert other.manifest["build"] != Bundle.open(cpu / "cpu" / "small").manifest["build"]


def test_what_training_leaves_beside_its_networks_makes_no_bundle_old(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    shutil.copytree(weights, folder)
    order = building.ordered("cpu", "small", str(folder), "none", None, tmp_path)
    before = building.all_inputs(order)
    for name in ("tensorboard/events", "editor_joint.state.safetensors", "editor_joint.jsonl", "editor_joint.png"):
        write_bytes(folder / name, b"a step further")
    assert building.all_inputs(order) == before
    for name in ("editor.safetensors", "lips.json", "MODEL_CARD.md"):
        write_bytes(folder / name, b"another")
        assert building.all_inputs(order) != before, name
        shutil.copyfile(weights / name, folder / name)
    assert building.all_inputs(order) == before


@pytest.mark.parametrize("place", ["_export", "_lower", "write_manifest", "put"])
def test_a_killed_build_leaves_the_old_bundle_and_the_next_one_ends(place: str, weights: Path, tmp_path: Path) -> None:
    old, _, _ = make("cpu", None, tmp_path)
    before = contents(old.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, place, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make("cpu", weights, tmp_path)
    assert contents(old.folder) == before and Bundle.open(old.folder).manifest == old.manifest
    new, cached, _ = make("cpu", weights, tmp_path)
    assert not cached and new.manifest["trained"]
    assert {path.name for path in tmp_path.iterdir()} == {"cpu", "stages"} and [path.name for path in (tmp_path / "cpu").iterdir()] == [
        "small"
    ]
    assert len(list((tmp_path / "stages").iterdir())) == 2, "stages of the old weights are gone, and nothing half-made is left"


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from flashlips_edge.models import presets
from targets import build as building

exported, out, presets.FOLDER, killed_at = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
building._export = lambda order, place: shutil.copytree(exported, place.with_name(".bundle.copy")).rename(place)  # beside, as export does
order = building.ordered("cpu", "small", str(presets.FOLDER / "weights"), "none", None, out)
touched = 0

def count(event, arguments):
    global touched
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "ctypes.dlsym"):
        touched += 1
        if touched == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
building.build(order, lambda line: None)
print(touched)
"""


def test_kill_9_at_any_moment_leaves_a_bundle_that_opens(
    weights: Path, exported: dict[Path | None, Path], repo: Path, tmp_path: Path
) -> None:
    def build(killed_at: int) -> subprocess.CompletedProcess[str]:
        places = (exported[weights], tmp_path / "out", presets.FOLDER)
        command = [sys.executable, "-c", KILLED, *map(str, places), str(killed_at)]
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(tmp_path / "old", tmp_path / "out")
        return subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=120)

    make("cpu", None, tmp_path / "old")
    whole = build(-1)
    assert whole.returncode == 0, whole.stderr
    moments = int(whole.stdout)
    assert moments > 100 and Bundle.open(tmp_path / "out" / "cpu" / "small").manifest["trained"]
    for part in (0.4, 0.9, 0.99):
        ended = build(int(moments * part)).returncode  # the last of them may lie behind a run that finds its modules compiled
        assert ended == -signal.SIGKILL or (ended == 0 and part > 0.5)
        Bundle.open(tmp_path / "out" / "cpu" / "small")
        assert make("cpu", weights, tmp_path / "out")[0].manifest["trained"], "the next build ends"
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cpu", "stages"]


def test_a_kiosk_s_engine_is_built_here(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle, _, said = make("rtx", weights, tmp_path)
    engine = EngineFolder.open(bundle)
    assert engine is not None and engine.graphs == GRAPHS and engine.manifest["capabilities"] == [86, 89, 120]
    assert all(len(engine.plan(graph)) > 1000 for graph in GRAPHS)
    engine.check(engine.manifest["version"], "NVIDIA GeForce RTX 4070", 89)
    with pytest.raises(
        UserError, match=r"is for sm_86 or sm_89 or sm_120 and this GPU, Orin, is sm_87; build it again with make engine TARGET=rtx"
    ):
        engine.check(engine.manifest["version"], "Orin", 87)
    assert any(line.startswith("engine of editor: ") for line in said)
    assert set(bundle.manifest["graphs"]["editor"]["nodes"].values()) <= {"fp16", "fp32"}
    building.rest(building.find_target("rtx"), bundle)
    assert "copy the folder to a PC with SM86 or SM89 or SM120" in capsys.readouterr().out


def test_a_jetson_s_bundle_says_what_is_left_to_do_there(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, _, _ = make("orin", weights, tmp_path)
    assert {"cubins/toy.cubin", "cubins/manifest.json"} <= bundle.manifest["files"].keys()
    assert bundle.manifest["target"]["capability"] == 87 and EngineFolder.open(bundle) is None
    assert max(entry["opset"] for entry in bundle.manifest["graphs"].values()) <= 20
    building.rest(building.find_target("orin"), bundle)
    printed = capsys.readouterr().out
    assert f"copy the folder there, then python -m flashlips_edge.engines.build {bundle.folder}" in printed
    assert "make engine TARGET=orin HOST=user@device" in printed
    (bundle.folder / "cubins" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="cubins/manifest.json was altered"):
        Bundle.open(bundle.folder)


def test_a_graph_that_the_device_s_engine_cannot_read_is_refused(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building.nodes, "opset", lambda model: 21)
    with pytest.raises(UserError, match="is written in opset 21, and the engine of target orin reads 20 at most"):
        make("orin", weights, tmp_path)
    assert not (tmp_path / "orin").exists()


@pytest.mark.parametrize("target", ["orin", "thor", "rtx", "cpu"])
def test_low_precision_is_asked_for_as_the_table_says(target: str, cpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    (tmp_path / "someone.mp4").touch()
    monkeypatch.setattr(quantisation, "build", lambda *arguments: asked.append(arguments))
    order = building.ordered(target, "small", "none", building.find_target(target).precision.formats[0], tmp_path, tmp_path)
    building._lower(order, cpu / "cpu" / "small", order.videos, tmp_path / "place")
    ((_, name, wanted, form, videos, budget, out),) = asked
    table = building.find_target(target)
    assert (name, form, videos, out) == (target, table.precision.formats[0], tmp_path, tmp_path / "place")
    assert set(wanted.graphs) == set(table.precision.low) and wanted.rest == table.precision.rest
    assert budget.mouth_db == table.limits.mouth_db


@pytest.fixture()
def nothing_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fresh clone, with no recorded data beside it."""
    monkeypatch.delenv("FLASHLIPS_DATA", raising=False)
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")


def quantised(seen: list[Path]) -> Any:
    """In place of quantisation, which has tests of its own: it notes the folder of videos and leaves the networks as they are."""

    def build(source: Bundle, target: str, wanted: Any, form: str, videos: Path, budget: Any, out: Path) -> None:
        seen.append(videos)
        shutil.copytree(source.folder, out)

    return build


def test_without_recorded_faces_the_synthetic_head_serves(
    nothing_recorded: None, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(quantisation, "build", quantised(seen))
    monkeypatch.setattr(drawn, "SEEDS", range(1010, 1011))
    monkeypatch.setattr(drawn, "FRAMES", 30)
    order = building.ordered("cpu", "small", str(weights), None, None, tmp_path / "out")
    said: list[str] = []
    bundle, cached = building.build(order, said.append)
    assert not cached and sum("no recorded faces to calibrate on" in line and "CALIBRATION=folder" in line for line in said) == 1
    (video,) = calibration.videos_in(seen[0])
    clip = Recording.open(video, 160, None, tmp_path)
    assert len(clip.numbers) == 30 and np.ptp(clip.sound()) > 0.1, "the run path's detector finds the face, and it is heard"
    assert bundle.manifest["target"]["calibrated_on"] == "the synthetic head"
    building.summary(bundle, *building.build(order, said.append)[1:], 0.1)
    assert "calibrated on the synthetic head" in (printed := capsys.readouterr().out) and "as it was" in printed


def in_fp8(source: Path) -> onnx.ModelProto:
    """A graph of pictures that turns them after FP8: ONNX Runtime up to 1.31, left to itself, turns them in FP8, which opset 20 does
    not have, and does not load it."""
    model = onnx.load(str(source))
    (name,) = (value.name for value in model.graph.input)
    for node in model.graph.node:
        node.input[:] = ["seen" if each == name else each for each in node.input]
    scale = onnx.numpy_helper.from_array(np.float32(1 / 64), "fp8.scale")
    zero = onnx.helper.make_tensor("fp8.zero", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])
    model.graph.initializer.extend([scale, zero])
    nodes = [
        onnx.helper.make_node("QuantizeLinear", [name, "fp8.scale", "fp8.zero"], ["fp8"]),
        onnx.helper.make_node("DequantizeLinear", ["fp8", "fp8.scale", "fp8.zero"], ["wide"]),
        onnx.helper.make_node("Transpose", ["wide"], ["seen"], perm=[0, 1, 3, 2]),
    ]
    for number, node in enumerate(nodes):
        model.graph.node.insert(number, node)
    next(entry for entry in model.opset_import if not entry.domain).version = 20
    return model


def test_an_fp8_bundle_is_checked_and_runs_here(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(source: Bundle, target: str, wanted: Any, form: str, videos: Path, budget: Any, out: Path) -> None:
        shutil.copytree(source.folder, out)
        place = source.graph_path("latent_encoder").name
        onnx.save(in_fp8(source.graph_path("latent_encoder")), str(out / place))
        inputs, _ = source.golden("latent_encoder")
        outputs = OnnxRuntimeEngine(out / place, fuse_quantised=False).run(inputs)
        arrays = {f"in.{key}": value for key, value in inputs.items()} | {f"out.{key}": value for key, value in outputs.items()}
        np.savez(out / "golden" / "latent_encoder.npz", **arrays)
        fields = {key: value for key, value in source.manifest.items() if key not in ("schema", "files")}
        write_manifest(out, {**fields, "quantisation": {"format": form}})

    monkeypatch.setattr(quantisation, "build", build)
    (tmp_path / "me.mp4").touch()
    order = building.ordered("ada", "small", str(weights), "fp8", tmp_path, tmp_path / "out")
    bundle, _ = building.build(order, lambda line: None)
    assert device_build.golden_error(bundle, "latent_encoder", open_engine(bundle, "latent_encoder", 1)) < 0.01


def test_own_videos_are_taken_by_content(nothing_recorded: None, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(quantisation, "build", quantised(seen))
    videos = tmp_path / "videos"
    write_bytes(videos / "me.mp4", b"one")

    def make_it() -> tuple[Bundle, bool]:
        return building.build(building.ordered("cpu", "small", str(weights), "int8", videos, tmp_path / "out"), lambda line: None)

    bundle, _ = make_it()
    assert seen == [videos] and bundle.manifest["target"]["calibrated_on"] == "recorded faces" and make_it()[1]
    write_bytes(videos / "me.mp4", b"two")  # the same size
    assert not make_it()[1]


def test_recorded_data_that_is_named_and_not_there_is_a_mistake(
    nothing_recorded: None, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHLIPS_DATA", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=f"--calibration is missing, and {tmp_path / 'gone' / 'train'} is not there"):
        building.ordered("cpu", "small", str(weights), None, None, tmp_path)
    with pytest.raises(UserError, match="is empty: it, or the folders in it, must hold videos"):
        building.ordered("cpu", "small", str(weights), None, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["orrin"], "TARGET 'orrin' is not one of ada, .*; did you mean orin?"),
        (["orin", "--preset", "nanno"], "preset 'nanno' is not one of edge, nano, paper; did you mean nano?"),
        (
            ["orin", "--preset", "paper"],
            r"--weights is missing: preset paper has no trained weights here; take PRESET=nano .* or train them with python -m",
        ),
        (["orin", "--weights", "nowhere"], "--weights nowhere: no such folder; name one that training wrote, or none"),
        (["orin", "--format", "fp8"], "--format fp8: target orin takes int8 or none"),
        (["orin", "--calibration", "nowhere"], "--calibration nowhere: no such folder"),
        (["orin", "--host", "-oProxyCommand=x"], "--host"),
        (["orin", "--host", "a b"], "--host 'a b' is no device: give user@device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_ends_in_one_sentence(arguments: list[str], words: str, repo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "targets.build", *arguments, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr

    assert re.search(words, done.stderr)
    assert not (tmp_path / "out").exists()


@pytest.fixture()
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A device whose home is a folder, behind a program ssh that runs what it is told there and notes its arguments."""
    home, programs, notes = tmp_path / "home", tmp_path / "bin", tmp_path / "notes"
    python = home / remote.CHECKOUT / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {notes}\nls "$3" >> {notes}\n')
    programs.mkdir()
    (programs / "ssh").write_text(
        f'#!/bin/sh\nfor last; do :; done\necho "$@" | head -c 60 >> {notes}\necho >> {notes}\ncd {home} && exec sh -c "$last"\n'
    )
    for program in (python, programs / "ssh"):
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return SimpleNamespace(home=home, program=programs / "ssh", notes=notes)


def test_the_bundle_goes_to_the_device_and_its_engine_is_built_there(cpu: Path, ssh: SimpleNamespace) -> None:
    there = ssh.home / remote.CHECKOUT / "work" / "targets" / "cpu" / "small"
    write_bytes(there / "engine" / "timing.cache", b"timed")
    write_bytes(there / "of the old bundle", b"")
    remote.build_there(cpu / "cpu" / "small", "kiosk@orin-7")
    assert Bundle.open(there).manifest == Bundle.open(cpu / "cpu" / "small").manifest
    assert engine_folder.timings(Bundle.open(there)) == b"timed"
    assert not (there / "of the old bundle").exists()
    notes = ssh.notes.read_text()
    assert notes.count("-o BatchMode=yes -o ConnectTimeout=10 kiosk@orin-7") == 2
    assert "-m flashlips_edge.engines.build work/targets/cpu/small.new" in notes and "manifest.json" in notes
    assert [path.name for path in there.parent.iterdir()] == ["small"]


def test_a_build_that_is_refused_leaves_the_device_s_bundle_and_engine(cpu: Path, ssh: SimpleNamespace) -> None:
    there = ssh.home / remote.CHECKOUT / "work" / "targets" / "cpu" / "small"
    write_bytes(there / "engine" / "manifest.json", b"old")
    (ssh.home / remote.CHECKOUT / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(UserError, match="the command there ended with 2"):
        remote.build_there(cpu / "cpu" / "small", "kiosk@orin-7")
    assert (there / "engine" / "manifest.json").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("status", "words"),
    [(255, "ssh cannot connect without a password; .* ssh-copy-id kiosk@orin"), (3, "the command there ended with 3, see above")],
)
def test_a_device_that_fails_is_one_sentence(status: int, words: str, cpu: Path, ssh: SimpleNamespace) -> None:
    ssh.program.write_text(f"#!/bin/sh\ncat > /dev/null\nexit {status}\n")
    with pytest.raises(UserError, match=words):
        remote.build_there(cpu / "cpu" / "small", "kiosk@orin")


def test_a_broken_transfer_leaves_the_device_s_bundle(cpu: Path, ssh: SimpleNamespace) -> None:
    there = ssh.home / remote.CHECKOUT / "work" / "targets" / "cpu" / "small"
    write_bytes(there / "manifest.json", b"old")
    command = remote.receive("work/targets/cpu/small")
    done = subprocess.run(["ssh", "orin", command], input=b"not an archive", capture_output=True)
    assert done.returncode != 0 and (there / "manifest.json").read_bytes() == b"old"


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "no exchange"])
def test_a_folder_takes_another_s_place(exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchanges:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(renameat2=lambda *_: -1))
    write_bytes(tmp_path / "old" / "a", b"1")
    write_bytes(tmp_path / "new" / "b", b"2")
    put(tmp_path / "new", tmp_path / "old")
    assert contents(tmp_path) == {"old/b": hashlib.sha256(b"2").hexdigest()}
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_two_builds_at_once_are_refused(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(UserError, match="another build is at work in "), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_a_stage_that_failed_is_made_again_and_old_ones_go(tmp_path: Path) -> None:
    stages = Stages(tmp_path, 1, lambda line: None)
    with pytest.raises(OSError, match="full"):
        stages.run("a", {"x": 1}, lambda place: (_ for _ in ()).throw(OSError("full")))
    first = stages.run("a", {"x": 1}, lambda place: place.mkdir())
    (tmp_path / f".a-{'0' * 16}.work").mkdir()
    assert stages.run("a", {"x": 1}, lambda place: pytest.fail("it was there")) == first
    second = stages.run("a", {"x": 2}, lambda place: place.mkdir())
    assert list(tmp_path.iterdir()) == [second]
