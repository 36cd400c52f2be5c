"""The evaluation: its measures against figures worked out by hand, its landmarks on real faces, its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flashlips_edge.evaluation import flops, metrics, report, sheets, speech, speed
from flashlips_edge.evaluation.landmarks import LipReader
from flashlips_edge.evaluation.recordings import Recording

ALIGN_UNITS_PER_S = 25_000  # GRID's word alignments


@pytest.fixture(scope="module")
def reader() -> LipReader:
    repo = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("FLASHLIPS_MODELS") or repo.parent / "shared" / "models")
    if not folder.is_dir():
        pytest.skip("no landmark network: set FLASHLIPS_MODELS to the folder that holds it")
    return LipReader(folder)


def test_psnr_of_a_constant_error():
    truth = np.full((8, 8, 3), 100, np.uint8)
    assert metrics.psnr(truth + 10, truth) == pytest.approx(28.1308, abs=1e-3)  # 20 log10(255 / 10)
    assert metrics.psnr(truth, truth) == float("inf")


def test_psnr_within_a_weight_sees_only_that_region():
    truth = np.full((4, 4, 3), 100, np.uint8)
    image = truth.copy()
    image[0] = 110
    top = np.zeros((4, 4))
    top[0] = 1
    assert metrics.psnr(image, truth, top) == pytest.approx(28.1308, abs=1e-3)
    assert metrics.psnr(image, truth, 1 - top) == float("inf")


def test_the_mouth_box_is_the_one_of_the_data_notes():
    crop = np.arange(160 * 160).reshape(160, 160)
    box = metrics.mouth_box(crop)
    assert box.shape == (48, 70)
    assert box[0, 0] == 92 * 160 + 45
    assert metrics.mouth_box(np.zeros((192, 192, 3))).shape[:2] == (58, 84)


def test_correlation():
    track = np.array([1.0, 2.0, 4.0, 3.0])
    assert metrics.correlation(track, 5 - 2 * track) == pytest.approx(-1)
    assert metrics.correlation([0, 1, 0, 1], [0, 0, 1, 1]) == pytest.approx(0)
    assert metrics.correlation(track, np.ones(4)) == 0


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_the_lag_of_a_shifted_track_is_found(lag):
    sound = np.random.default_rng(0).normal(size=80)
    assert metrics.best_lag(sound[10 - lag : 70 - lag], sound[10:70]) == lag


def take(openings: list[float], recorded: np.ndarray) -> speech.Take:
    """What the run path made of a clip whose recorded openings are given, 40 ms apart."""
    clip = Recording(Path("clip"), np.arange(100), np.arange(100) * 40_000_000, [], np.zeros((100, 1, 1, 3)), recorded)
    return speech.Take("take", clip, Path(), np.arange(len(openings)), np.array(openings), recorded[: len(openings)])


def test_silence_is_judged_by_the_mouth_in_speech_once_it_had_time_to_close():
    recorded = np.concatenate([np.full(50, 0.12), np.full(50, 0.22)])
    silent = take([0.3] * 5 + [0.13] * 5, recorded)  # open for 200 ms, then nearly closed
    found = speech.measure_silence([silent], [take([0.12, 0.17], recorded)])
    assert found == {"share": pytest.approx(0.2), "worst": pytest.approx(0.2)}


def test_a_result_that_follows_the_sound_and_not_the_avatar():
    draw = np.random.default_rng(1)
    truth, own = draw.normal(0.2, 0.05, 100), draw.normal(0.2, 0.05, 100)
    spoken = replace(take(list(0.1 + truth / 2), own), truth=truth)
    found = speech.measure_crossed([spoken])
    assert found["correlation"] == pytest.approx(1) and found["range"] == pytest.approx(0.5) and found["lag_frames"] == 0
    assert found["leak"] == pytest.approx(found["chance"])


def test_order_needs_every_step():
    assert metrics.in_order(np.array([0.12, 0.14, 0.2]))
    assert not metrics.in_order(np.array([0.12, 0.11, 0.2]))


def graph(path: Path, nodes: list, inputs: dict, outputs: list[str], weights: dict) -> Path:
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "hand-made",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, path)
    return path


def test_flops_of_a_convolution_a_product_and_a_layer(tmp_path):
    path = graph(
        tmp_path / "tiny.onnx",
        [
            helper.make_node("Conv", ["x", "kernel"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1], group=2),
            helper.make_node("ConvTranspose", ["a", "up"], ["b"], strides=[2, 2]),
            helper.make_node("Flatten", ["b"], ["c"]),
            helper.make_node("Gemm", ["c", "layer"], ["d"], transB=1),
            helper.make_node("MatMul", ["d", "last"], ["y"]),
        ],
        {"x": ["batch", 4, 8, 8]},
        ["y"],
        {
            "kernel": np.zeros((6, 2, 3, 3)),
            "up": np.zeros((6, 5, 2, 2)),
            "layer": np.zeros((7, 5 * 8 * 8)),
            "last": np.zeros((7, 3)),
        },
    )
    conv = 2 * 6 * 4 * 4 * (2 * 3 * 3)
    transposed = 2 * 6 * 4 * 4 * (5 * 2 * 2)
    layers = 2 * (5 * 8 * 8) * 7 + 2 * 7 * 3
    one = flops.count(path, {"x": np.zeros((1, 4, 8, 8), np.float32)})
    assert one == conv + transposed + layers
    assert flops.count(path, {"x": np.zeros((3, 4, 8, 8), np.float32)}) == 3 * one


def test_flops_of_an_uncounted_operation_are_refused_by_name(tmp_path):
    node = helper.make_node("Einsum", ["x", "x"], ["y"], equation="bi,bj->bij")
    with pytest.raises(ValueError, match="Einsum"):
        flops.count(graph(tmp_path / "e.onnx", [node], {"x": [1, 2]}, ["y"], {}), {"x": np.zeros((1, 2), np.float32)})


def test_a_sheet_shows_its_pictures_in_rows(tmp_path):
    red, blue = (np.full((40, 40, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    page = sheets.sheet([("first", [red, red]), ("second", [blue])], tile_px=40)
    assert page.shape == (80, sheets.LABEL_WIDTH_PX + 80, 3)
    assert tuple(page[20, -20]) == (255, 0, 0)
    assert tuple(page[60, -60]) == (0, 0, 255)
    sheets.save(tmp_path / "new" / "page.png", page)
    assert (tmp_path / "new" / "page.png").stat().st_size > 0


def test_recorded_lips_read_closed_in_silence_and_open_in_speech(reader, data_path: Callable[[str], Path]):
    path = data_path("test/grid_s1/bbaf4p.mpg")
    clip = Recording.open(path, 160, reader)
    times_s = clip.pts_ns * 1e-9
    words = [line.split() for line in path.with_suffix(".align").read_text().splitlines()]
    spoken = np.zeros(len(times_s), bool)
    for start, end, word in words:
        if word != "sil":
            spoken |= (times_s >= int(start) / ALIGN_UNITS_PER_S) & (times_s < int(end) / ALIGN_UNITS_PER_S)
    closed = clip.openings[times_s < 0.3]
    assert 0.12 < np.median(closed) < 0.145
    assert clip.openings[spoken].max() > np.median(closed) + 0.04
    assert clip.openings[spoken].mean() > clip.openings[~spoken].mean()


def test_the_speed_is_read_from_what_a_run_prints():
    printed = "out.mp4\n250 frames in 8.0 s, 31.2 frames per second\nshare of the work: decode 12%, networks 61%\n"
    found = speed.parse(printed, wall_s=10.0)
    assert found == {"frames_per_second": 31.2, "with_start": 25.0, "share.decode": 0.12, "share.networks": 0.61}


def test_the_table_says_what_is_not_reached():
    lines = report.table({"cost.gflop.frame": 4.5, "cost.gflop.autoencoder": 2.0, "cost.gflop.editor": 1.0}).splitlines()
    assert lines[1].endswith("NOT REACHED") and lines[2].endswith(" reached")
    assert lines[3].split() == ["cost.gflop.editor", "1.000"]
    assert lines[-1] == "1 of 2 marks reached"


def test_a_mark_may_be_another_metric():
    copied = {"same_face.copy_db.video": 20.0}
    assert report.reached("same_face.cross_db.video", copied | {"same_face.cross_db.video": 21.0})
    assert not report.reached("same_face.cross_db.video", copied | {"same_face.cross_db.video": 19.0})


def start(command: list[str], repo: Path, folder: Path) -> subprocess.CompletedProcess:
    """Runs the command in another folder than the checkout, installed or not."""
    environment = {**os.environ, "PYTHONPATH": str(repo)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("options", "names"),
    [(["--data", "nowhere"], "--data nowhere"), (["--parts", "lips"], "--parts 'lips'"), (["--speed"], "--speed")],
)
def test_wrong_use_is_one_sentence(options, names, repo: Path, tmp_path):
    command = [sys.executable, "-m", "flashlips_edge.evaluation", *options]
    run = start(command, repo, tmp_path)
    assert run.returncode == 2
    assert names in run.stderr and "Traceback" not in run.stderr and len(run.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_quick_evaluation_prints_its_table_and_writes_flat_numbers(data_path: Callable[[str], Path], reader, repo: Path, tmp_path):
    for set_name in ("grid_s1", "grid_unseen", "video"):
        (tmp_path / "data" / "test" / set_name).mkdir(parents=True)
        clip = data_path("test/grid_s1/bbaf4p.mpg")
        (tmp_path / "data" / "test" / set_name / clip.name).symlink_to(clip.resolve())
    command = [sys.executable, "-m", "flashlips_edge.evaluation", "--quick", "--parts", "costs,autoencoder,same_face,control"]
    command += ["--data", str(tmp_path / "data"), "--models", str(reader.folder), "--out", str(tmp_path / "found.json")]
    run = start(command, repo, tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(isinstance(value, float) for value in found.values())
    assert found["cost.gflop.frame"] <= 4 and found["cost.gflop.speech"] <= 0.2 and found["cost.bundle_mb"] <= 40
    assert {name for name in found if name in run.stdout} == set(found)
    assert json.loads((tmp_path / "found.meta.json").read_text())["preset"] == "nano"
    assert (tmp_path / "out" / "evaluation" / "control.grid_s1.png").stat().st_size > 0
