"""python -m quantize as a user meets it: a bundle that the run path speaks with, the same bytes every time, nothing half-made, and
mistakes in one sentence. The networks are a few small convolutions, so that all of it takes seconds."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from clips import write_clip
from faces import speech, write_faces
from onnx import TensorProto, helper, numpy_helper
from tiny_bundle import CELLS, CHANNELS, SIZE, tiny_bundle

from flashlips_edge.bundle import Bundle, write_manifest
from flashlips_edge.errors import UserError
from flashlips_edge.talking.networks import Networks
from quantize import __main__ as command_line
from quantize import build as building
from quantize import calibration, sensitivity, targets, workbench
from quantize.answers import drive
from quantize.policy import Budget


def convolutional(folder: Path) -> Bundle:
    """The tiny bundle with convolutions in its picture graphs: pixels to noisy means, the means brightened by the lips, and back."""
    tiny_bundle(folder)
    random = np.random.default_rng(0)
    encode = random.normal(size=(CHANNELS, 3, 8, 8), scale=0.02)
    encode[:3] += np.eye(3)[:, :, None, None] / 64
    edit = random.normal(size=(CHANNELS, CHANNELS, 3, 3), scale=0.01)
    decode = random.normal(size=(3 * 64, CHANNELS, 1, 1), scale=0.01)
    decode[:, :3, 0, 0] += np.repeat(np.eye(3), 64, axis=0)
    latent, image = ["B", CHANNELS, CELLS, CELLS], ["B", 3, SIZE, SIZE]
    shape = numpy_helper.from_array(np.array([-1, 1, 1, 1]), "shape")
    first = numpy_helper.from_array(np.eye(12, 1, dtype=np.float32) * 0.05, "first")
    _save(folder, "latent_encoder", {"image": image}, {"latent": latent}, [_conv("image", "latent", 8)], encode)
    _save(
        folder,
        "editor",
        {"latent": latent, "reference_latents": ["B", 4 * CHANNELS, CELLS, CELLS], "lips": ["B", 12]},
        {"edited_latent": latent},
        [
            helper.make_node("MatMul", ["lips", "first"], ["open"]),
            helper.make_node("Reshape", ["open", "shape"], ["brightness"]),
            helper.make_node("Add", ["latent", "brightness"], ["brighter"]),
            helper.make_node("Conv", ["latent", "weight", "bias"], ["change"], "change", kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Add", ["brighter", "change"], ["edited"]),
            helper.make_node("ReduceMean", ["reference_latents"], ["reference"], keepdims=1),
            helper.make_node("Mul", ["reference", "nothing"], ["unused"]),
            helper.make_node("Add", ["edited", "unused"], ["edited_latent"]),
        ],
        edit,
        [shape, first, numpy_helper.from_array(np.zeros(1, np.float32), "nothing")],
    )
    shuffle = helper.make_node("DepthToSpace", ["fine"], ["image"], blocksize=8, mode="CRD")
    _save(folder, "latent_decoder", {"edited_latent": latent}, {"image": image}, [_conv("edited_latent", "fine", 1), shuffle], decode)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {key: value for key, value in manifest.items() if key not in ("schema", "files")})
    return Bundle.open(folder)


def _conv(source: str, result: str, stride: int) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "weight", "bias"], [result], "conv", strides=[stride, stride])


def _save(
    folder: Path, name: str, inputs: dict, outputs: dict, nodes: list, weight: np.ndarray, constants: list[onnx.TensorProto] | None = None
) -> None:
    tensors = [numpy_helper.from_array(weight.astype(np.float32), "weight"), *(constants or [])]
    tensors.append(numpy_helper.from_array(np.zeros(len(weight), np.float32), "bias"))
    ends = [[helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in each.items()] for each in (inputs, outputs)]
    model = helper.make_model(helper.make_graph(nodes, name, *ends, tensors), opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / f"{name}.onnx")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return convolutional(tmp_path_factory.mktemp("source") / "bundle")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder: two speaking faces."""
    folder = tmp_path_factory.mktemp("videos")
    for number in (1, 2):
        write_faces(folder / f"{number}.mp4", 40, sound=speech(1.6))
    return folder


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """One synthetic person, two seconds of sound."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "SYNTHETIC_SEEDS", range(1000, 1001))
        patch.setattr(calibration, "SOUND_S", 2)
        yield


@pytest.fixture(scope="module")
def make(source: Bundle, videos: Path) -> Callable[..., Bundle]:
    def make(out: Path, budget_db: float = 30.0) -> Bundle:
        target, form = targets.find("cpu", None)
        building.build(source, "cpu", target, form, videos, Budget(mouth_db=budget_db, lips=0.5, opening=-2), out)
        return Bundle.open(out)

    return make


@pytest.fixture(scope="module")
def made(make: Callable[..., Bundle], few: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make(tmp_path_factory.mktemp("made") / "int8")


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_bundle_is_made_that_says_what_it_is(made: Bundle, source: Bundle) -> None:
    bundle = made
    assert bundle.targets == ("cpu",) and source.targets == ()
    assert bundle.precision("editor") == "int8+fp32" and bundle.precision("audio_to_lips") == "fp32"
    assert bundle.manifest["graphs"]["latent_decoder"]["layers"] == {"weight": "int8"}
    assert len(bundle.manifest["quantisation"]["calibration_sha256"]) == 64
    report = json.loads((bundle.folder / "quantisation.json").read_text())
    assert {row["layer"] for row in report["layers"]} == {"weight"}
    crops = np.random.default_rng(1).integers(0, 255, (2, SIZE, SIZE, 3), np.uint8)
    pictures = []
    for each in (source, bundle):
        networks = Networks(each)
        latents = networks.encode(crops)
        pictures.append(networks.edit(crops, latents, np.concatenate([latents] * 4, 1), np.ones((2, 12), np.float32)))
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 4


def test_its_golden_pictures_are_what_it_answers(made: Bundle) -> None:
    networks = Networks(made)
    for graph in ("latent_encoder", "editor", "latent_decoder"):
        inputs, outputs = made.golden(graph)
        for name, answered in networks.engine(graph).run(inputs).items():
            assert (
                np.abs(answered - outputs[name]).max() <= made.manifest["graphs"][graph]["golden_tolerance"] * np.abs(outputs[name]).max()
            )


def test_running_twice_gives_the_same_bytes(made: Bundle, make: Callable[..., Bundle], tmp_path: Path) -> None:
    assert digests(make(tmp_path / "again").folder) == digests(made.folder)


def test_a_killed_run_leaves_no_bundle_and_goes_on_where_it_was(
    made: Bundle, make: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[set] = []
    quality = sensitivity.Workbench.quality

    def interrupted(bench: sensitivity.Workbench, models: dict) -> object:
        tried.append(set(models))
        if len(tried) == 14:  # after the rules for ranges, among the layers
            raise KeyboardInterrupt
        return quality(bench, models)

    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(sensitivity.Workbench, "quality", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(out)
    assert not out.exists() and (tmp_path / ".killed.work").is_dir()
    with monkeypatch.context() as patch:
        patch.setattr(calibration, "choose", lambda *_: pytest.fail("calibration was done already"))
        patch.setattr(sensitivity.Workbench, "choose_rules", lambda *_: pytest.fail("the rules were chosen already"))
        make(out)
    assert digests(out) == digests(made.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed"]


def test_a_budget_that_cannot_be_met_names_the_best_and_leaves_the_old_bundle(
    made: Bundle, make: Callable[..., Bundle], tmp_path: Path
) -> None:
    shutil.copytree(made.folder, tmp_path / "int8")
    before = digests(tmp_path / "int8")
    with pytest.raises(UserError, match=r"--budget-db 100 cannot be met in int8: the best there is, one layer alone, is \d\d\.\d dB"):
        make(tmp_path / "int8", 100)
    assert digests(tmp_path / "int8") == before


def test_graphs_that_gain_less_than_they_should_are_told(
    source: Bundle, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = Budget(mouth_db=30.0, lips=0.5, opening=-2, size=0.01)
    built = building.build(source, "cpu", *targets.find("cpu", None), videos, budget, tmp_path / "int8")
    command_line._tell(built)
    told = capsys.readouterr().out
    report = json.loads((tmp_path / "int8" / "quantisation.json").read_text())
    assert [sentence.partition(":")[0] for sentence in report["missed"]] == ["editor", "latent_decoder", "latent_encoder"]
    assert all(re.search(rf"^{re.escape(sentence)}$", told, re.MULTILINE) for sentence in report["missed"])
    size = (tmp_path / "int8" / "editor.onnx").stat().st_size / source.graph_path("editor").stat().st_size
    assert float(re.search(r"low at ([\d.]+) of", report["missed"][0])[1]) == pytest.approx(size, abs=0.01)


def test_a_folder_of_something_else_is_left_as_it_is(make: Callable[..., Bundle], tmp_path: Path) -> None:
    (tmp_path / "work" / "clips").mkdir(parents=True)
    with pytest.raises(UserError, match="--out .*work: this is there and is no quantised bundle; name a new folder, or delete it"):
        make(tmp_path / "work")
    assert [path.name for path in tmp_path.rglob("*")] == ["work", "clips"]


def test_an_altered_bundle_is_noticed(made: Bundle, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "int8")
    graph = tmp_path / "int8" / "editor.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="editor.onnx was altered"):
        Bundle.open(tmp_path / "int8")


def test_an_empty_calibration_folder_is_named(source: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--calibration .* is empty: it, or the folders in it, must hold videos"):
        calibration.choose(tmp_path, source)
    with pytest.raises(UserError, match=r"--calibration .*nowhere: no such folder"):
        calibration.choose(tmp_path / "nowhere", source)


def test_videos_without_faces_are_named(source: Bundle, tmp_path: Path) -> None:
    write_clip(tmp_path / "corners.mp4", n=30)
    with pytest.raises(UserError, match=r"--calibration .*: no video there can be used: .*corners.mp4 shows a face in 0 of its frames"):
        calibration.choose(tmp_path, source)


def test_a_build_that_finds_no_face_leaves_nothing(source: Bundle, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "corners.mp4", n=30)
    target, form = targets.find("cpu", None)
    with pytest.raises(UserError, match="shows a face in 0 of its frames"):
        building.build(source, "cpu", target, form, tmp_path / "videos", Budget(), tmp_path / "int8")
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_frame_whose_lips_fall_counts_wherever_it_stands(source: Bundle, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = calibration.choose(videos, source, 30, 2, 4)
    bench = workbench.Workbench(source, *targets.find("datacentre", None), frames)
    same = {"lips_encoder": onnx.load(source.graph_path("lips_encoder"))}
    assert len(frames.crops) > workbench.TRIED[0]
    assert bench.quality(same).lips > 0.9999

    def turned(networks: Networks, asked: calibration.CalibrationSet) -> np.ndarray:
        lips = drive(networks, asked)
        lips[-1] *= -1
        return lips

    monkeypatch.setattr(workbench, "drive", turned)
    assert bench.quality(same).lips < 0


def test_the_set_holds_what_differs_most_and_its_hash_what_it_holds(source: Bundle, videos: Path) -> None:
    points = np.concatenate([np.random.default_rng(0).normal(size=(200, 3)), [[30, 0, 0], [0, -30, 0]]])
    assert {200, 201} <= set(calibration.farthest_first(points, 4))
    frames = calibration.choose(videos, source, 12, 2, 4)
    assert frames.crops.shape == (12, SIZE, SIZE, 3) and frames.references.shape == (12, 4, SIZE, SIZE, 3)
    assert calibration.choose(videos, source, 12, 2, 4).digest == frames.digest
    frames.crops[3, 0, 0, 0] ^= 1
    assert calibration.choose(videos, source, 12, 2, 4).digest != frames.digest
    assert all(str(name).startswith("synthetic.") for name in frames.synthetic(2).sources)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "orin", "--format", "fp8"], "--format fp8"),
        (["--target", "gpu"], "--target 'gpu' is not one of ada, blackwell, cpu, datacentre, orin"),
        (["--target", "cpu", "--budget-db", "500"], "--budget-db 500: a budget is 20 to 100 dB"),
        (["--target", "cpu", "--finetune", "-1"], "--finetune -1: a number of steps is 0 or more"),
        (["--target", "cpu", "--preset", "nanno"], "did you mean nano"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["quantize", *arguments])
    with pytest.raises(UserError, match=re.escape(words)):
        command_line.main()


def test_a_mistake_ends_in_one_sentence_and_status_2(repo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quantize", "--target", "cpu", "--calibration", "nowhere", "--out", str(tmp_path / "out")]
    result = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and result.stderr == "quantize: --calibration nowhere: no such folder; name one that holds videos\n"
    assert not list(tmp_path.iterdir())
