"""The evaluation: its landmarks on real faces, its report, its command line on a folder of videos."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from faces import write_faces

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import __main__ as evaluation
from flashlips_edge.evaluation import at_rest, costs, folder, html, measures, plots, report, run_path, self_drive, sheets, speed, systems
from flashlips_edge.evaluation.__main__ import main
from flashlips_edge.evaluation.judges import Judges
from flashlips_edge.evaluation.landmarks import MODEL_NAME, LipReader
from flashlips_edge.evaluation.left_out import each as left_out_each
from flashlips_edge.evaluation.marks import SETS, reached
from flashlips_edge.evaluation.parts import QUICK_NS, Evaluation, Findings
from flashlips_edge.evaluation.protocols import Scene
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.evaluation.takes import Result, Speech
from flashlips_edge.face.detect import Box
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter
from flashlips_edge.recorded import Report

ALIGN_UNITS_PER_S = 25_000  # GRID's word alignments


@pytest.fixture(scope="module")
def reader() -> LipReader:
    repo = Path(__file__).resolve().parent.parent
    models = Path(os.environ.get("FLASHLIPS_MODELS") or repo.parent / "shared" / "models")
    if not models.is_dir():
        pytest.skip("no landmark network: set FLASHLIPS_MODELS to the folder that holds it")
    return LipReader(models)


def test_recorded_lips_read_closed_in_silence_and_open_in_speech(reader, data_path: Callable[[str], Path], tmp_path):
    path = data_path("test/grid_s1/bbaf4p.mpg")
    clip = Recording.open(path, 160, reader, tmp_path)
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


def test_the_videos_of_a_folder_are_sets(tmp_path):
    for name in ("b.mp4", "a.MOV", "notes.txt", "x/2.webm", "x/1.mp4", "x/3.avi", "y/readme.md", "photos/p.jpg"):
        (tmp_path / "talks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "talks" / name).touch()
    found = folder.sets_of(tmp_path / "talks")
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "talks": ["a.MOV", "b.mp4"],
        "x": ["1.mp4", "2.webm", "3.avi"],
    }
    assert [path.name for path in folder.sets_of(tmp_path / "talks", quick=True)["x"]] == ["1.mp4", "3.avi"]
    assert [path.name for path in folder.photos_of(tmp_path / "talks")] == ["p.jpg"]
    with pytest.raises(UserError, match="FOLDER .*y holds no videos"):
        folder.sets_of(tmp_path / "talks" / "y")
    with pytest.raises(UserError, match=r"FOLDER .*b\.mp4 is a file: give a folder of videos"):
        folder.sets_of(tmp_path / "talks" / "b.mp4")
    with pytest.raises(UserError, match="FOLDER .*gone is not there: name a folder of videos, or set FLASHLIPS_DATA"):
        folder.sets_of(tmp_path / "gone")


def test_a_video_without_a_face_or_sound_is_refused_by_name(data_path: Callable[[str], Path], tmp_path):
    source = data_path("test/grid_s1/bgit4n.mpg")
    with VideoFile(source) as video:
        shape = video.width, video.height, video.frame_rate
        with VideoWriter(tmp_path / "mute.mp4", *shape) as mute, VideoWriter(tmp_path / "grey.mp4", *shape) as grey:
            for frame in islice(video, 26):
                mute.write(frame)
                grey.write(np.full_like(frame.image, 120), frame.pts_ns)
    with pytest.raises(UserError, match="grey.mp4 shows a face in 0 of its frames"):
        Recording.open(tmp_path / "grey.mp4", 160, None, tmp_path)
    with pytest.raises(UserError, match="mute.mp4: there is no sound"):
        Recording.open(tmp_path / "mute.mp4", 160, None, tmp_path).sound()


def test_a_slow_video_is_looked_at_for_25_faces(tmp_path):
    path = write_faces(tmp_path / "slow.mp4", n=40, rate=15)
    (tmp_path / "store").mkdir()
    assert len(Recording.open(path, 64, None, tmp_path / "store", QUICK_NS).crops) == 25
    assert len(Recording.open(path, 64, None, tmp_path / "store", 2_000_000_000).crops) == 30


def test_clips_that_differ_in_their_suffix_alone_have_two_names(tmp_path):
    paths = [tmp_path / "talk" / name for name in ("a.mov", "a.mp4", "b.mp4")]
    (tmp_path / "talk").mkdir()
    for path in (*paths, tmp_path / "talk" / "b.align"):
        path.touch()
    assert [recording(path).name for path in paths] == ["talk.a.mov", "talk.a.mp4", "talk.b"]


def recording(path: Path, first: int = 0) -> Recording:
    """26 frames of a video from this one on; their crops are noise."""
    numbers = np.arange(first, first + 26)
    crops = np.random.default_rng(0).integers(0, 255, (26, 64, 64, 3)).astype(np.uint8)
    return Recording(path, numbers, numbers * 40_000_000, [Box(8, 8, 24, 24)] * 26, crops, None)


def test_a_face_that_comes_after_the_sound_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"late\.mp4 shows its first face only after the sound"):
        Result.read(write_clip(tmp_path / "result.mp4", n=5), recording(tmp_path / "late.mp4", first=30), None)


def test_what_fails_is_left_out_and_the_rest_is_measured():
    left_out: dict[str, str] = {}
    found = left_out_each("speech", [Path("a"), Path("b.mp4"), Path("3")], lambda path: int(path.name, 16), left_out)
    assert found == [10, 3]
    assert left_out == {"speech on b.mp4": "ValueError: invalid literal for int() with base 16: 'b.mp4'"}


def test_a_run_that_takes_too_long_is_an_error_like_one_that_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(run_path, "LIMIT_S", 0.01)
    with pytest.raises(RuntimeError, match=r"-m flashlips_edge\.run .* was not done after 0\.01 s"):
        run_path.lip_sync(tmp_path / "out.mp4", "nano", avatar="a.mp4", audio="a.wav")


def test_parts_and_clips_that_fail_do_not_cost_the_report(monkeypatch, tmp_path, capsys):
    (tmp_path / "talk").mkdir()
    for name in ("one", "two"):
        write_faces(tmp_path / "talk" / f"{name}.mp4", n=26)

    def run(out: Path, bundle: str, avatar: Path, driver: Path) -> None:
        if avatar.stem == "one":
            raise RuntimeError("it ended with 2")
        shutil.copy(driver, out)

    def fails(*_: object) -> None:
        raise ValueError("these networks cannot be counted")

    monkeypatch.setattr(self_drive, "lip_sync", run)
    monkeypatch.setattr(costs, "measure", fails)
    main([str(tmp_path / "talk"), "--parts", "costs,self_drive", "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["self_drive.codec_db.talk"] > 40
    left_out = json.loads((tmp_path / "out" / "evaluation.meta.json").read_text())["left_out"]
    assert left_out["costs"] == "ValueError: these networks cannot be counted"
    assert left_out["self_drive on talk.one"] == "RuntimeError: it ended with 2"
    assert "the source's picture does not move" in left_out["self_drive.flicker on talk.two"]
    assert "self_drive on talk.one" in capsys.readouterr().out and (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_figure_is_left_out_by_name(monkeypatch, tmp_path, capsys, value):
    (tmp_path / "talk").mkdir()
    write_faces(tmp_path / "talk" / "one.mp4", n=26)
    monkeypatch.setattr(costs, "measure", lambda networks: {"frame": value, "autoencoder": 2.0})
    main([str(tmp_path / "talk"), "--parts", "costs", "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found.keys() == {"cost.gflop.autoencoder", "cost.bundle_mb"} and found["cost.gflop.autoencoder"] == 2
    left_out = json.loads((tmp_path / "out" / "evaluation.meta.json").read_text())["left_out"]
    assert left_out["cost.gflop.frame"] == f"it came out as {value}, which is no figure"
    said = capsys.readouterr().out
    assert "2 of 2 marks reached" in said and f"left out: cost.gflop.frame (it came out as {value}" in said
    assert f"cost.gflop.frame: it came out as {value}" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("lacks", ["", "a part", "a clip", "a set", "the landmarks"])
def test_figures_are_kept_only_of_a_whole_evaluation(monkeypatch, tmp_path, lacks):
    sets = SETS[:2] if lacks == "a set" else SETS
    for name in sets:
        (tmp_path / "test" / name).mkdir(parents=True)
        write_faces(tmp_path / "test" / name / "one.mp4", n=26)
    missing = {"LPIPS": "no file"} | ({"openings": "no landmark network"} if lacks == "the landmarks" else {})
    monkeypatch.setattr(Judges, "open", lambda *_: Judges(None, None, None, None, missing))

    def part(self: Evaluation, name: str) -> Iterator[tuple[str, float]]:
        if lacks == "a part" and name == "costs":
            self.findings.left_out[name] = "it failed"
        if lacks == "a clip" and name == "speech":
            self.findings.left_out["speech on grid_s1.one"] = "it failed"
        self.findings.metrics[f"{name}.value"] = 1.0
        yield f"{name}.value", 1.0

    monkeypatch.setattr(Evaluation, "run", part)
    monkeypatch.setattr(evaluation, "RECORD", tmp_path / "record.json")
    monkeypatch.setenv("FLASHLIPS_DATA", str(tmp_path))
    main(["--out", str(tmp_path / "out")])
    assert (tmp_path / "record.json").is_file() == (not lacks)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["speed.value"] == 1


def test_a_record_that_cannot_be_written_costs_no_report(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for name in SETS:
        (tmp_path / "test" / name).mkdir(parents=True)
        write_faces(tmp_path / "test" / name / "one.mp4", n=26)
    monkeypatch.setattr(Judges, "open", lambda *_: Judges(None, None, None, None, {}))
    monkeypatch.setattr(Evaluation, "run", lambda self, name: iter(()))
    monkeypatch.setenv("FLASHLIPS_DATA", str(tmp_path))
    (tmp_path / "record.json").mkdir()
    monkeypatch.setattr(evaluation, "RECORD", tmp_path / "record.json")
    with pytest.raises(UserError, match="record.json: it cannot be written"):
        main(["--out", "out"])
    assert "out/report.html" in capsys.readouterr().out and (tmp_path / "out" / "report.html").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "record.json", "test"]


def test_two_sets_of_one_name_are_refused_and_a_set_ends_in_another_s_name(tmp_path, monkeypatch):
    for place in ("men", "men/men", "men/young.men"):
        (tmp_path / place).mkdir()
        write_clip(tmp_path / place / "a.mp4", n=26)
    with pytest.raises(UserError, match="hold sets of one name; rename one"):
        folder.sets_of(tmp_path / "men")
    (tmp_path / "men" / "men" / "a.mp4").unlink()
    monkeypatch.chdir(tmp_path / "men")
    assert list(folder.sets_of(Path())) == ["men", "young.men"] and recording(Path("a.mp4")).name == "men.a"
    found = Findings(["men", "young.men"], {"autoencoder.mouth_db.men": 41.25, "autoencoder.mouth_db.young.men": 39.5})
    html.write(tmp_path / "report.html", found, dict.fromkeys(("bundle", "preset", "commit", "date", "device"), "any"))
    page = (tmp_path / "report.html").read_text()
    assert "<th>young.men</th>" in page and "<td>autoencoder.mouth_db</td><td>41.250</td><td>39.500</td>" in page


def test_of_a_long_video_only_what_is_looked_at_is_run(monkeypatch, tmp_path):
    path, clip = write_clip(tmp_path / "long.mp4", n=60), recording(tmp_path / "long.mp4")
    assert clip.is_cut and not replace(clip, numbers=np.arange(50), pts_ns=np.arange(50) * 40_000_000).is_cut
    lengths = []

    def run(out: Path, bundle: str, avatar: Path, driver: Path) -> None:
        with VideoFile(driver) as video:
            lengths.append(sum(1 for _ in video))
        shutil.copy(driver, out)

    monkeypatch.setattr(self_drive, "lip_sync", run)
    left_out: dict[str, str] = {}
    assert "codec_db" in self_drive.measure([clip], "nano", tmp_path, left_out) and left_out == {}
    assert lengths == [26] and path.is_file()


def test_a_judge_that_is_missing_is_named(tmp_path):
    judges = Judges.open(None, tmp_path, None)
    assert judges.reader is None and judges.lpips is None
    assert any("landmark distance" in name for name in judges.missing) and "LPIPS" in judges.missing
    with pytest.raises(UserError, match="--models"):
        Judges.open(tmp_path, tmp_path, None)


@pytest.mark.parametrize("named", [True, False])
def test_a_damaged_landmark_network_is_one_sentence(tmp_path, named):
    (tmp_path / MODEL_NAME).write_bytes(b"no network" * 100)
    with pytest.raises(UserError, match=rf"--models {tmp_path}: {MODEL_NAME} is damaged or no network"):
        Judges.open(tmp_path if named else None, tmp_path, None)


def test_a_source_that_stands_still_is_told_so():
    clip = replace(recording(Path("talk/photo.mp4")), crops=np.full((26, 64, 64, 3), 90, np.uint8))
    result = Result(clip, np.arange(26), recording(Path("talk/photo.mp4")).crops, None)
    left_out: dict[str, str] = {}
    speech = Speech(np.zeros(16_640, np.float32), None, None)
    judges = Judges(None, None, None, None, {})
    assert left_out_each("speech", [clip], lambda clip: measures.lips(result, speech, judges), left_out) == []
    assert left_out == {"speech on talk.photo": "the source's picture does not move: there is nothing to hold the result against"}


def test_a_sheet_shows_its_pictures_in_rows(tmp_path):
    red, blue = (np.full((40, 40, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    page = sheets.sheet([("first", [red, red]), ("second", [blue])], tile_px=40)
    assert page.shape == (80, sheets.LABEL_WIDTH_PX + 80, 3)
    assert tuple(page[20, -20]) == (255, 0, 0)
    assert tuple(page[60, -60]) == (0, 0, 255)
    sheets.save(tmp_path / "new" / "page.png", page)
    assert (tmp_path / "new" / "page.png").stat().st_size > 0


def test_the_speed_is_read_from_what_a_run_prints():
    printed = "out.mp4\n250 frames in 8.0 s, 31.2 frames per second\nshare of the work: decode 12%, networks 61%\n"
    found = speed.parse(printed, wall_s=10.0)
    assert found == {"frames_per_second": 31.2, "with_start": 25.0, "share.decode": 0.12, "share.networks": 0.61}


def test_a_face_rests_where_its_mouth_opens_least():
    openings = np.full(40, 0.3)
    openings[5:9], openings[20:32] = 0.0, 0.1  # the first is closed, and too short
    assert at_rest.calmest(openings, 10) == 20
    assert at_rest.calmest(openings[:6], 10) == 0, "a clip that is shorter is taken whole"


def test_what_is_not_reached_is_said():
    lines = report.verdicts({"cost.gflop.frame": 4.5, "cost.gflop.autoencoder": 2.0, "cost.gflop.editor": 1.0}).splitlines()
    assert lines[0].endswith("NOT REACHED") and lines[1].endswith(" reached")
    assert lines[2] == "1 of 2 marks reached"


def test_a_mark_may_be_so_much_above_another_figure():
    copied = {"same_face.best_copy_db.video": 20.0}
    assert reached("same_face.masked_db.video", copied | {"same_face.masked_db.video": 22.1})
    assert not reached("same_face.masked_db.video", copied | {"same_face.masked_db.video": 21.9})
    assert reached("same_face.masked_db.video", {"same_face.masked_db.video": 21.9}) is None


@pytest.mark.parametrize(
    ("better", "order"),
    [
        ("up", ["copy", "random", "ours", "frozen"]),
        ("down", ["frozen", "ours", "random", "copy"]),
        ("to one", ["copy", "random", "frozen", "ours"]),
    ],
)
def test_on_a_scale_right_is_better(better, order):
    plot = plots.scale({"copy": -0.5, "random": -0.1, "ours": 0.9, "frozen": 1.3}, better)
    dots = {name: float(x) for x, name in re.findall(r'<circle cx="([\d.]+)".*?<title>(\w+) ', plot)}
    assert sorted(dots, key=dots.__getitem__) == order


def findings(tmp_path: Path) -> Findings:
    """One clip of one set, of which SyncNet says nothing."""
    systems = {"copy": 0.98, "speech": 0.81, "random": 0.05, "frozen": 0.1}
    metrics = {f"{system}.{protocol}.correlation.talk": r for protocol in ("own", "crossed") for system, r in systems.items()}
    metrics["silence.zeros.share.talk"] = 0.07
    seconds = np.arange(50) / 25
    lines = {name: (seconds, np.sin(seconds + i)) for i, name in enumerate(("frozen", "speech", "result"))}
    sheets.save(tmp_path / "page.png", np.full((40, 40, 3), 90, np.uint8))
    scenes = {"talk": [Scene("talk.a<b", {}, {"own": lines})]}
    return Findings(["talk"], metrics, scenes, {"speech.talk.a<b": tmp_path / "page.png"}, {"SyncNet": "no weights"})


def test_the_summary_has_a_line_for_each_system(tmp_path):
    lines = report.summary(findings(tmp_path).metrics, ["talk"]).splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["own", "opening", "r"],
        ["own", "talk", "copy", "0.98"],
        ["own", "talk", "ours", "0.81"],
        ["own", "talk", "random", "0.05"],
        ["own", "talk", "frozen", "0.10"],
    ]


def test_the_gap_between_groups_is_from_the_worst_to_the_best():
    women, men = {"mouth_db": 30.0, "jitter": 0.9, "leak": 0.4, "range": 1.3}, {"mouth_db": 27.5, "jitter": 0.7, "leak": 0.1, "range": 0.9}
    metrics = {f"speech.own.{name}.{group}": value for group, values in (("women", women), ("men", men)) for name, value in values.items()}
    found = {gap.column: (gap.worst[0], gap.best[0]) for gap in report.gaps(metrics, ["women", "men"])}
    assert found == {"mouth dB": ("men", "women"), "jitter": ("men", "women"), "leak": ("women", "men"), "range": ("women", "men")}
    assert "own      mouth dB   worst 27.5 (men), best 30.0 (women)" in report.between(metrics, ["women", "men"]).splitlines()
    assert report.between(metrics, ["women"]) == ""


def test_the_report_is_one_file_with_everything_in_it(tmp_path):
    circumstances = dict.fromkeys(("bundle", "preset", "commit", "date", "device"), "x")
    html.write(tmp_path / "out" / "report.html", findings(tmp_path), circumstances)
    text = (tmp_path / "out" / "report.html").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert all(source.startswith("data:image/jpeg") for source in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert text.count("<img") == 1 and text.count("<polyline") == 3
    assert "a&lt;b" in text and "a<b" not in text
    assert "0.81" in text and "0.070" in text and "SyncNet: no weights" in text and "LPIPS" not in text


def start(command: list[str], repo: Path, where: Path) -> subprocess.CompletedProcess:
    """Runs the command in another folder than the checkout, installed or not."""
    environment = {**os.environ, "PYTHONPATH": str(repo)}
    return subprocess.run(command, capture_output=True, text=True, cwd=where, env=environment)


@pytest.mark.parametrize(("options", "names"), [(["--parts", "lips"], "--parts 'lips'"), (["--speed"], "--speed")])
def test_a_wrong_option_is_named(options, names):
    with pytest.raises(UserError, match=names):
        main(options)


def test_wrong_use_is_one_sentence(repo: Path, tmp_path):
    run = start([sys.executable, "-m", "flashlips_edge.evaluation", "nowhere"], repo, tmp_path)
    assert run.returncode == 2
    assert "FOLDER nowhere" in run.stderr and len(run.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_which_nothing_can_be_measured_is_one_sentence_that_says_why(tmp_path):
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "faceless.mp4", n=30)
    (tmp_path / "videos" / "torn.mp4").write_bytes(b"this is no video")
    with pytest.raises(UserError, match=r"videos holds no video that can be measured: .*faceless\.mp4 shows a face in 0 of its frames"):
        main([str(tmp_path / "videos"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "taken").touch()
    write_faces(tmp_path / "one.mp4", n=26)
    with pytest.raises(UserError, match=r"--out .*taken/report: Not a directory; name a folder that can be written"):
        main([str(tmp_path), "--out", str(tmp_path / "taken" / "report")])


def test_a_place_that_cannot_be_written_is_named_before_the_videos_are_read(monkeypatch, tmp_path):
    monkeypatch.setattr(Recording, "open", lambda *_: pytest.fail("a video was read"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "videos").touch()
    write_faces(tmp_path / "one.mp4", n=26)
    for out in (tmp_path / "one.mp4", tmp_path / "one.mp4" / "report", tmp_path / "out"):
        with pytest.raises(UserError, match=rf"--out {out}: Not a directory; name a folder that can be written"):
            main([str(tmp_path), "--out", str(out)])


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_is_one_line_and_status_130(monkeypatch, tmp_path, capsys):
    write_faces(tmp_path / "one.mp4", n=26)
    monkeypatch.setattr(self_drive, "lip_sync", interrupted)
    assert evaluation.command([str(tmp_path), "--parts", "self_drive", "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "flashlips_edge.evaluation: stopped before its report was written"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["videos"]


def test_ctrl_c_while_a_clip_speaks_ends_more_than_that_clip(monkeypatch, tmp_path):
    report = Report(None, 3, 1.0, {}, interrupted=True)
    monkeypatch.setattr(systems, "lip_sync_recording", lambda *_, **__: report)
    with pytest.raises(KeyboardInterrupt):
        systems.ours(Bundle.open("nano"), tmp_path / "one.mp4", np.zeros(100), tmp_path / "out.mp4")


def test_a_quick_evaluation_of_a_folder(data_path: Callable[[str], Path], reader, repo: Path, tmp_path):
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "man.mpg").symlink_to(data_path("test/grid_s1/bbaf4p.mpg").resolve())
    (tmp_path / "talk" / "torn.mp4").write_bytes(b"this is no video")
    (tmp_path / "talk" / "photos").mkdir()
    (tmp_path / "talk" / "photos" / "torn.jpg").write_bytes(b"this is no picture")
    command = [sys.executable, "-m", "flashlips_edge.evaluation", "talk", "--quick", "--models", str(reader.folder)]
    command += ["--parts", "costs,autoencoder,same_face,control,speech,at_rest", "--out", "found"]
    run = start(command, repo, tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    assert all(isinstance(value, float) for value in found.values())
    assert found["cost.gflop.frame"] <= 4 and found["cost.gflop.speech"] <= 0.2 and found["cost.bundle_mb"] <= 40
    assert found["autoencoder.mouth_db.talk"] > 39
    # the scale: a copy equals its source and, under other speech, leaks it; a frozen mouth does neither
    assert found["copy.own.correlation.talk"] > 0.9 > found["frozen.own.correlation.talk"]
    assert found["copy.own.mouth_db.talk"] > found["speech.own.mouth_db.talk"] > found["frozen.own.mouth_db.talk"]
    assert found["copy.crossed.leak.talk"] > 0.9 > found["speech.crossed.leak.talk"]
    assert found["frozen.own.range.talk"] < found["speech.own.range.talk"]
    assert found["frozen.own.lip_jitter.talk"] < found["random.own.lip_jitter.talk"]
    assert found["at_rest.range.talk"] > 0 and abs(found["at_rest.correlation.talk"]) <= 1
    with VideoFile(tmp_path / "found" / "videos" / "rest.talk.man.idle.mp4") as idle:
        assert len(list(idle)) == at_rest.STRETCH
    left_out = json.loads((tmp_path / "found" / "evaluation.meta.json").read_text())["left_out"]
    assert "talk/torn.mp4" in left_out and "torn.mp4" in run.stdout
    assert left_out["control on torn.jpg"] == "talk/photos/torn.jpg cannot be read as a picture."
    assert ("offset" in run.stdout) != any("SyncNet" in name for name in left_out)
    assert "<svg" in (tmp_path / "found" / "report.html").read_text()
    assert (tmp_path / "found" / "speech.talk.man.png").stat().st_size > 0
