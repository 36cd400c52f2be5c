"""A personal avatar: made from a person's video, spoken with, refused in one sentence where it cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_clip
from faces import write_faces, write_speech
from test_folders import killed
from tiny_bundle import tiny_bundle

from flashlips_edge import run
from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.talking.avatar_folder import AvatarFolder, write_record
from flashlips_edge.training import personal
from flashlips_edge.training.synthetic_head import Identity, Lips, Pose, render

WEIGHTS = Path(__file__).parent.parent / "weights" / "nano"
N_FRAMES = 180


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Path:
    """Seven seconds of somebody the networks never saw, nodding and talking."""
    identity, draw = Identity.from_seed(77), np.random.default_rng(5)
    jaws = np.clip(np.convolve(draw.normal(0.3, 0.5, N_FRAMES + 4), np.ones(5) / 5, "valid"), 0, 1)
    images = [
        render(identity, Pose(yaw=0.1 * np.sin(i / 30), pitch=0.05 * np.cos(i / 40)), Lips(jaw=float(jaw)), (240, 320))
        for i, jaw in enumerate(jaws)
    ]
    return write_clip(tmp_path_factory.mktemp("stranger") / "me.mp4", size=(320, 240), images=images, options={"crf": "14"})


@pytest.fixture(scope="module")
def avatar(stranger, tmp_path_factory) -> Path:
    """The avatar folder that a short fine-tuning gives."""
    out = tmp_path_factory.mktemp("avatars") / "me"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personal, "SYNTHETIC_SEEDS", range(1000, 1002))
        patch.setattr(personal, "BATCH", 6)
        personal.main([stranger], "Ada, for this test", out, WEIGHTS, steps=40)
    return out


def test_tuning_knows_the_face_better_on_frames_it_did_not_learn_from(avatar: Path) -> None:
    record = json.loads((avatar / "avatar.json").read_text())
    assert record["consent"] == "Ada, for this test"
    assert record["mouth_hidden_db"] > record["mouth_hidden_db_before"]
    assert sorted(path.name for path in avatar.parent.iterdir()) == ["me"]  # nothing half-made lies beside it


@pytest.mark.parametrize("after, better", [(31.0, True), (29.0, False), (28.5, False)])
def test_an_avatar_that_got_no_better_says_so(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after: float, better: bool
) -> None:
    monkeypatch.setattr(personal, "make", lambda *_: {"mouth_hidden_db_before": 29.0, "mouth_hidden_db": after})
    personal.main([stranger], "Ada", tmp_path / "me", WEIGHTS)
    said = capsys.readouterr().out
    assert f"29.0 dB before, {after:.1f} dB after" in said
    assert ("got no better" not in said) is better


def test_the_command_line_speaks_with_the_avatars_own_networks(avatar: Path, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "speech.wav", 0.6)
    assert run.main(["--avatar", str(avatar), "--audio", str(speech), "--out", str(tmp_path / "out.mp4"), "--threads", "1"]) == 0
    with VideoFile(tmp_path / "out.mp4") as video:
        assert (video.width, video.height, len(list(video))) == (320, 240, 15)
    tuned, shipped = Bundle.open(avatar / "bundle"), Bundle.open("nano")
    assert tuned.manifest["files"]["editor.onnx"] != shipped.manifest["files"]["editor.onnx"]
    assert tuned.manifest["files"]["latent_decoder.onnx"] == shipped.manifest["files"]["latent_decoder.onnx"]


def test_a_bundle_that_is_named_goes_before_the_avatars_own(tmp_path: Path) -> None:
    folder = tmp_path / "ada"
    folder.mkdir()
    write_faces(folder / "video.mp4", 5)
    write_record(folder, "video.mp4", "Ada", {})
    speech, tiny = write_speech(tmp_path / "speech.wav", 0.2), tiny_bundle(tmp_path / "bundle")
    words = ["--avatar", str(folder), "--audio", str(speech), "--out", str(tmp_path / "out.mp4"), "--threads", "1"]
    assert run.main(words) == 2  # it has no bundle of its own
    assert run.main([*words, "--bundle", str(tiny.folder)]) == 0


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("{", "not a readable avatar's record"),
        ('{"schema": 9, "video": "video.mp4"}', "schema 9 is newer than 2"),
        ('{"schema": 1, "video": "../../secret.mp4"}', "not in the folder"),
        ('{"schema": 1, "video": "gone.mp4"}', "not in the folder"),
        ("[1]", "not a readable avatar's record"),
    ],
)
def test_a_broken_record_is_refused_in_one_sentence(tmp_path: Path, record: str, says: str) -> None:
    (tmp_path / "avatar.json").write_text(record)
    with pytest.raises(UserError, match=says):
        AvatarFolder.open(tmp_path)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    return write_faces(tmp_path / "short.mp4", 30, Fraction(25))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "frames with a face are left to learn from, as the last ones watch; at least 150 are needed"),
        ({"videos": [Path("none.mp4")]}, "none.mp4: no such file"),
        ({"out": Path(__file__).parent}, "exists already"),
        ({"consent": " "}, "--consent is empty"),
        ({"out": Path(__file__) / "new"}, r"cannot write to .*test_personal\.py"),
        ({"weights": Path(__file__).parent}, "no editor.safetensors there"),
        ({"preset": "paper"}, "--preset paper: no weights come with it"),
    ],
)
def test_wrong_use_is_refused_and_leaves_nothing(short: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    right = {"videos": [short], "consent": "Ada", "out": tmp_path / "new", "weights": WEIGHTS, "steps": 2, "preset": "nano"}
    with pytest.raises(UserError, match=says):
        personal.main(**(right | change))
    assert sorted(tmp_path.iterdir()) == [short]


def test_what_a_killed_run_left_goes_with_the_next(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = killed(tmp_path / "new")

    def fine_tune(*_: object) -> dict[str, float]:
        assert not left.exists()
        raise UserError("no more of it")

    monkeypatch.setattr(personal, "fine_tune", fine_tune)
    with pytest.raises(UserError, match="no more of it"):
        personal.main([short], "Ada", tmp_path / "new", WEIGHTS, 2, "nano")
    assert list(tmp_path.iterdir()) == [short]


def test_a_video_without_a_face_is_refused_by_name(short: Path, tmp_path: Path) -> None:
    grey = write_clip(tmp_path / "grey.mp4", n=30)
    with pytest.raises(UserError, match=r"VIDEO .*grey\.mp4: it shows no face for as long as a second; leave it out"):
        personal.main([short, grey], "Ada", tmp_path / "new", WEIGHTS, 2, "nano")


def test_the_command_line_refuses_in_one_sentence(short: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "flashlips_edge.training.personal", str(short), "--consent", "Ada", "--out", str(tmp_path / "new")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=WEIGHTS.parent.parent)
    assert done.returncode == 2
    assert "at least 150 are needed" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    edge = subprocess.run([*words, "--preset", "edge"], capture_output=True, text=True, cwd=WEIGHTS.parent.parent)
    assert edge.returncode == 2 and "at least 150 are needed" in edge.stderr.strip().splitlines()[-1]  # with edge's own weights


RECIPE = """
import os, tempfile, time
from flashlips_edge.training.command import command

def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ["WORK"]):
        print("at work", flush=True)
        {work}

command(main)
"""


def test_a_recipe_that_is_ended_leaves_no_folder(tmp_path: Path) -> None:
    words, around = [sys.executable, "-c", RECIPE.format(work="time.sleep(60)")], os.environ | {"WORK": str(tmp_path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=around) as process:
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.terminate()
        assert process.wait(30) == 143
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        "OSError(28, 'No space left on device')",
        "OSError('1697280 requested and 511872 written')",
        "__import__('safetensors').SafetensorError('Error while serializing: I/O error: File too large (os error 27)')",
    ],
)
def test_a_full_disk_is_one_sentence_for_every_recipe(tmp_path: Path, error: str) -> None:
    words, around = [sys.executable, "-c", RECIPE.format(work=f"raise {error}")], os.environ | {"WORK": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=around)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "the disk takes no more (" in done.stderr and "make room and run it again" in done.stderr
