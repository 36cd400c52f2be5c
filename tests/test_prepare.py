"""Videos become clips whose sound belongs to their lips; what cannot be used is named, and an interrupted run loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[build]'")

from clips import corners, write_clip
from faces import face, speech, write_faces

from flashlips_edge.errors import UserError
from flashlips_edge.media.audio_file import read_audio
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.training import pack, prepare
from flashlips_edge.training.clips import Clip, load_clips
from flashlips_edge.training.pieces import pieces
from flashlips_edge.training.shards import Shards
from flashlips_edge.training.syncnet import moved

SPOKEN = "test/grid_unseen/sbia1a.mpg"
DUB = "test/speech/jfk.wav"
LATE = 4  # frames
Run = tuple[Path, Path, dict[str, str]]


def with_sound(path: Path, source: Path, sound: np.ndarray) -> None:
    """The pictures of ``source`` with another sound, nearly lossless."""
    with VideoFile(source) as video:
        images = [frame.image for frame in video]
    height, width = images[0].shape[:2]
    write_clip(path, size=(width, height), images=images, sound=sound, options={"crf": "12"})


@pytest.fixture(scope="module")
def run(data_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder of good and bad videos, the folder of their shards, and what became of each by name."""
    videos, out = tmp_path_factory.mktemp("people"), tmp_path_factory.mktemp("clips")
    source, waveform = data_path(SPOKEN), read_audio(data_path(SPOKEN))
    shutil.copy(source, videos / "spoken.mpg")
    with_sound(videos / "late.mp4", source, moved(waveform, LATE))
    with_sound(videos / "dubbed.mp4", source, read_audio(data_path(DUB))[16_000:64_000])
    write_faces(videos / "mute.mp4", n=30)
    write_faces(videos / "hushed.mp4", n=30, sound=np.zeros(20_000, np.float32))
    write_clip(videos / "faceless.mp4", n=30, sound=speech(1.2))
    (videos / "cut_off.mpg").write_bytes(source.read_bytes()[:60_000])
    (videos / "empty.mp4").touch()
    (videos / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(20_000))
    (videos / "notes.txt").write_text("not a video")
    (videos / "a_link.mp4").symlink_to(videos / "nowhere.mp4")
    (videos / "a_ring.m4v").symlink_to(videos / "a_ring.m4v")
    prepare.main([videos], out, workers=1)
    inputs = json.loads((out / "manifest.json").read_text())["inputs"]
    return videos, out, {Path(source).name: entry["outcome"] for source, entry in inputs.items()}


def clips_of(out: Path) -> dict[str, Clip]:
    return {clip.name.split(".")[1]: clip for clip in load_clips(out)}


def test_every_file_has_its_outcome(run: Run) -> None:
    outcomes = run[2]
    assert outcomes["spoken.mpg"] == "1 kept"
    assert outcomes["late.mp4"] in {f"1 kept, its sound moved by -{frames} frames of 40 ms" for frames in (LATE - 1, LATE, LATE + 1)}
    assert outcomes["dubbed.mp4"] == "1 dropped: sound and lips do not belong together"
    assert "there is no sound in it" in outcomes["mute.mp4"] and outcomes["mute.mp4"].startswith("1 kept without sound")
    assert outcomes["hushed.mp4"] == "1 kept without sound: nobody speaks"
    assert outcomes["faceless.mp4"] == outcomes["cut_off.mpg"] == "1 dropped: it shows no face for as long as a second"
    assert "the file is empty" in outcomes["empty.mp4"]
    assert "damaged" in outcomes["noise.mkv"]
    assert "there is no such file" in outcomes["nowhere.mp4"] and "a_ring.m4v" in outcomes
    assert "notes.txt" not in outcomes


def test_a_clip_is_what_the_video_shows_and_says(run: Run) -> None:
    videos, out, _ = run
    clips = clips_of(out)
    assert sorted(clips) == ["hushed", "late", "mute", "spoken"]
    spoken = clips["spoken"]
    with VideoFile(videos / "spoken.mpg") as video:
        frames = [frame.pts_ns for frame in video]
    assert spoken.set_name == videos.name.replace(".", "_")
    assert spoken.crops.shape == (len(spoken.pts_ns), 160, 160, 3) and spoken.crops.dtype == np.uint8
    assert len(spoken.pts_ns) == len(frames) and spoken.pts_ns[0] == 0
    assert spoken.audio is not None and np.array_equal(spoken.audio[:40_000], read_audio(videos / "spoken.mpg")[:40_000])
    assert clips["mute"].audio is None and clips["hushed"].audio is None and spoken.params is None
    with pytest.raises(ValueError, match="read-only"):
        spoken.crops[0] = 0


def test_late_sound_is_moved_back(run: Run) -> None:
    clips = clips_of(run[1])
    late, spoken = clips["late"].audio, clips["spoken"].audio
    assert late is not None and spoken is not None
    n = min(len(late), len(spoken))
    product = np.fft.irfft(np.fft.rfft(late[:n], 2 * n) * np.conj(np.fft.rfft(spoken[:n], 2 * n)))
    shift = int(np.argmax(product))
    assert abs(shift - 2 * n if shift > n else shift) <= 640 + 100, "within a frame, and the codec's own delay"


def test_the_manifest_describes_the_shards(run: Run) -> None:
    out = run[1]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["crop_size"] == 160
    assert {path.name for path in out.iterdir()} == {*manifest["shards"], "manifest.json", ".lock"}
    for name, shard in manifest["shards"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == shard["sha256"]
        assert shard["bytes"] == (out / name).stat().st_size
    names = [clip for entry in manifest["inputs"].values() for clip in entry["clips"]]
    assert sorted(names) == sorted(clip.name for clip in load_clips(out))


def test_webdataset_reads_the_shards(run: Run) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed: pip install webdataset")
    shards = sorted(str(path) for path in run[1].glob("*.tar"))
    samples = {sample["__key__"]: sample for sample in webdataset.WebDataset(shards, shardshuffle=False).decode()}
    clips = load_clips(run[1])
    assert set(samples) == {clip.name.replace(".", "/") for clip in clips}
    for clip in clips:
        sample = samples[clip.name.replace(".", "/")]
        assert np.array_equal(sample["crops.npy"], clip.crops) and np.array_equal(sample["pts_ns.npy"], clip.pts_ns)
        assert ("audio.npy" in sample) == (clip.audio is not None)
        assert Path(sample["json"]["source"]).exists()


def test_a_second_run_does_only_what_is_new(run: Run, tmp_path: Path) -> None:
    videos, first, _ = run
    out = shutil.copytree(first, tmp_path / "clips")
    before = (out / "clips-00000.tar").stat()
    more = tmp_path / "more.mp4"
    shutil.copy(videos / "mute.mp4", more)
    prepare.main([videos, more], out, workers=1)
    after = (out / "clips-00000.tar").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert sorted(clips_of(out)) == ["hushed", "late", "more", "mute", "spoken"]


def test_the_videos_of_a_lost_shard_are_prepared_again(tmp_path: Path) -> None:
    with Shards(tmp_path, 8) as shards:
        shards.add("kept", 1, "1 kept", {"a.kept": {"crops.npy": np.zeros((2, 8, 8, 3), np.uint8)}})
        shards.close_shard()
        shards.add("lost", 1, "1 kept", {"a.lost": {"crops.npy": np.zeros((2, 8, 8, 3), np.uint8)}})
    (tmp_path / "clips-00001.tar").unlink()
    with Shards(tmp_path, 8) as shards:
        assert shards.done("kept", 1) and not shards.done("lost", 1)


def test_a_link_is_tried_again_when_its_file_is_back(run: Run, tmp_path: Path) -> None:
    videos, _, _ = run
    (tmp_path / "people").mkdir()
    link = tmp_path / "people" / "mute.mpeg"
    link.symlink_to(tmp_path / "disk" / "mute.mpeg")
    write_faces(tmp_path / "people" / "faces.m4v", n=30)
    prepare.main([tmp_path / "people"], tmp_path / "clips", workers=1)
    assert sorted(clips_of(tmp_path / "clips")) == ["faces"]
    (tmp_path / "disk").mkdir()
    shutil.copy(videos / "mute.mp4", tmp_path / "disk" / "mute.mpeg")
    prepare.main([tmp_path / "people"], tmp_path / "clips", workers=1)
    assert sorted(clips_of(tmp_path / "clips")) == ["faces", "mute"]


def test_no_clip_at_all_is_one_sentence_and_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    faceless, torn = write_clip(tmp_path / "faceless.mp4", n=30), tmp_path / "torn.mp4"
    torn.write_bytes(b"this is no video")
    with pytest.raises(UserError, match=r"no clip came out of 2 videos; .*faceless\.mp4: 1 dropped: it shows no face"):
        prepare.main([faceless, torn], tmp_path / "mine" / "new" / "clips", workers=1)
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(UserError, match="no clip came out of 1 video; "):
        prepare.main([faceless], tmp_path / "mine", workers=1)
    assert (tmp_path / "mine" / "manifest.json").is_file(), "a folder that was there stays"


@pytest.mark.parametrize("fails", ["pieces", "read_audio"])
def test_whatever_one_video_does_to_a_library_is_its_outcome(fails: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("an odd picture:\n!ssize.empty()")

    monkeypatch.setattr(prepare, fails, refuse)
    outcome, clips = prepare.prepare_video(run[0] / "mute.mp4", tmp_path, 64, prepare.SHIPPED)
    assert outcome == "1 dropped: error: an odd picture: !ssize.empty()" and clips == {}


FULL_DISK = """
import resource, sys
from pathlib import Path
from flashlips_edge.training import prepare
from flashlips_edge.training.command import command
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
    command(prepare.main)
"""


KILLED_WORKER = """
import os
from flashlips_edge.training import prepare
from flashlips_edge.training.command import command
def killed(*_):
    os._exit(9)
if __name__ == "__main__":
    prepare.prepare_video = killed
    command(prepare.main)
"""


def test_a_worker_that_is_killed_ends_the_run_in_one_sentence(run: Run, tmp_path: Path, repo: Path) -> None:
    (tmp_path / "prepare.py").write_text(KILLED_WORKER)
    command = [sys.executable, "-B", str(tmp_path / "prepare.py"), str(run[0] / "mute.mp4"), "--out", str(tmp_path / "clips")]
    environment = os.environ | {"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "--workers 2: one of them was killed" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("room", [1_000_000, 2_306_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(room: int, run: Run, tmp_path: Path, repo: Path) -> None:
    """Too full for the crops of a video; and for the shard that holds them."""
    script, out = tmp_path / "prepare.py", tmp_path / "clips"
    script.write_text(FULL_DISK)
    command = [sys.executable, "-B", str(script), str(room), str(run[0] / "mute.mp4"), "--out", str(out), "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"--out .*clips: .*; make room and run it again", done.stderr.splitlines()[-1])
    assert not list(out.glob("*.tar")) and not list(out.glob(".clips*")) and not (out / ".parts").exists()


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from flashlips_edge.training.pieces import pieces  # noqa: E402
from flashlips_edge.training.shards import Shards
with Shards(Path(sys.argv[1]), 8) as shards:
    shards.add("first", 1, "1 kept", {"a.first": {"crops.npy": np.zeros((2, 8, 8, 3), np.uint8)}})
    shards.close_shard()
    shards.add("second", 1, "1 kept", {"a.second": {"crops.npy": np.zeros((2, 8, 8, 3), np.uint8)}})
    os._exit(9)
"""


def test_a_killed_run_leaves_no_half_shard(tmp_path: Path, repo: Path) -> None:
    killed = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(killed, cwd=repo, env=os.environ | {"PYTHONPATH": str(repo)}, check=False).returncode == 9
    assert [clip.name for clip in load_clips(tmp_path)] == ["a.first"]
    with Shards(tmp_path, 8) as shards:
        assert shards.done("first", 1) and not shards.done("second", 1)
        shards.add("second", 1, "1 kept", {"a.second": {"crops.npy": np.ones((2, 8, 8, 3), np.uint8)}})
    assert [clip.name for clip in load_clips(tmp_path)] == ["a.first", "a.second"]
    assert not list(tmp_path.glob(".clips*"))


def test_an_interruption_keeps_whole_inputs_only(tmp_path: Path) -> None:
    crops = {"crops.npy": np.zeros((2, 8, 8, 3), np.uint8)}
    with pytest.raises(UserError, match="No such file"), Shards(tmp_path, 8) as shards:
        shards.add("first", 1, "1 kept", {"a.first": {**crops}})
        shards.add("second", 1, "2 kept", {"a.second": {**crops}, "a.third": {**crops, "audio.npy": tmp_path / "nowhere.npy"}})
    assert [clip.name for clip in load_clips(tmp_path)] == ["a.first"]
    with tarfile.open(tmp_path / "clips-00000.tar") as shard:
        assert shard.getnames() == ["a/first.crops.npy"]
    assert list(json.loads((tmp_path / "manifest.json").read_text())["inputs"]) == ["first"]


@pytest.mark.parametrize("frames", [416, 1000])
def test_what_the_disk_is_too_full_for_does_not_cost_what_is_there(frames: int, tmp_path: Path, repo: Path) -> None:
    """The second input does not fit, by its last bytes or by far."""
    script = """
import resource, sys
from pathlib import Path
import numpy as np
from flashlips_edge.errors import UserError
from flashlips_edge.training.shards import Shards
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with Shards(Path(sys.argv[1]), 8) as shards:
        shards.add("first", 1, "1 kept", {"a.first": {"crops.npy": np.zeros((100, 8, 8, 3), np.uint8)}})
        shards.add("second", 1, "1 kept", {"a.second": {"crops.npy": np.zeros((int(sys.argv[2]), 8, 8, 3), np.uint8)}})
except UserError as error:
    sys.exit(str(error))
"""
    environment = os.environ | {"PYTHONPATH": str(repo)}
    command = [sys.executable, "-c", script, str(tmp_path), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stderr.strip() == f"--out {tmp_path}: File too large; make room and run it again"
    assert [(clip.name, len(clip.crops)) for clip in load_clips(tmp_path)] == [("a.first", 100)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "clips-00000.tar", "manifest.json"]
    with Shards(tmp_path, 8) as shards:
        assert shards.done("first", 1) and not shards.done("second", 1)


def test_what_was_dropped_is_tried_again_when_it_has_changed(tmp_path: Path) -> None:
    with Shards(tmp_path, 8) as shards:
        shards.add("video", 100, "1 dropped: damaged", {})
    with Shards(tmp_path, 8) as shards:
        assert shards.done("video", 100) and not shards.done("video", 120)


def test_a_folder_has_one_writer_and_one_crop_size(tmp_path: Path) -> None:
    with Shards(tmp_path, 8) as shards:
        shards.add("first", 1, "1 kept", {"a.first": {"crops.npy": np.zeros((2, 8, 8, 3), np.uint8)}})
        with pytest.raises(UserError, match="another process writes there"), Shards(tmp_path, 8):
            pass
    with pytest.raises(UserError, match="crops of 8 px, not 16"), Shards(tmp_path, 16):
        pass


def test_a_damaged_shard_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "clips-00000.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(UserError, match=r"clips-00000\.tar is damaged"):
        load_clips(tmp_path)


@pytest.mark.parametrize(
    "manifest",
    ["{", "[1]", "{}", '{"crop_size": 8, "shards": {}, "inputs": {"a": {}}}', '{"crop_size": 8, "shards": {"a": 1}, "inputs": {}}'],
)
def test_a_damaged_manifest_is_one_sentence_and_stays(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    for _ in range(2):  # the folder is free again after the first
        with pytest.raises(UserError, match=rf"--out {tmp_path}: its manifest\.json cannot be read or is damaged"), Shards(tmp_path, 8):
            pass
    assert (tmp_path / "manifest.json").read_text() == manifest


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:300])])
def test_a_damaged_array_of_a_clip_is_one_sentence_that_names_it(damage: Callable[[Path], object], tmp_path: Path) -> None:
    for name in ("talk.a", "talk.b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "crops.npy", np.zeros((2, 8, 8, 3), np.uint8))
    (clip, _), path = load_clips(tmp_path), tmp_path / "talk.a" / "crops.npy"
    damage(path)
    for read in (lambda: load_clips(tmp_path), lambda: clip.crops):
        with pytest.raises(UserError, match=rf"--clips {tmp_path}: talk\.a/crops\.npy cannot be read or is damaged; delete talk\.a"):
            read()


@given(
    kinds=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["uint8", "int64", "float32"])), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_arrays_come_back_as_they_went_in(kinds: list[tuple[int, str]], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, generator = tmp_path_factory.mktemp("shards"), np.random.default_rng(seed)
    given_ = [generator.integers(0, 255, (length, 3, 2)).astype(kind) for length, kind in kinds]
    with Shards(folder, 8) as shards:
        for i, array in enumerate(given_):
            shards.add(str(i), 1, "1 kept", {f"a.{i}": {"crops.npy": array, "pts_ns.npy": array[:, 0]}})
    for array, clip in zip(given_, load_clips(folder)):
        assert clip.crops.dtype == array.dtype and np.array_equal(clip.crops, array) and np.array_equal(clip.pts_ns, array[:, 0])


def test_a_clip_ends_where_the_face_or_the_scene_does(tmp_path: Path) -> None:
    """Thirty frames of a face, half a second without, thirty of it again, then a cut to another picture of a face."""
    here = face()
    there = np.ascontiguousarray(255 - here[:, ::-1] // 3)
    there[60:200, 90:240] = here[60:200, 90:240]
    images = [here] * 30 + [corners(320, 240)] * 13 + [here] * 30 + [there] * 30
    path = write_clip(tmp_path / "scenes.mp4", size=(320, 240), frame_rate=Fraction(25), images=images, options={"crf": "8"})
    with VideoFile(path) as video:
        found = [(int(piece.pts_ns[0] // 40_000_000), len(piece.crops)) for piece in pieces(video, 64)]
    assert found[0] == (0, 30)
    assert 43 <= found[1][0] <= 46 and found[1][0] + found[1][1] == 73
    assert found[2:] == [(73, 30)]


def test_at_four_pictures_a_second_each_is_no_gap(tmp_path: Path) -> None:
    with VideoFile(write_faces(tmp_path / "slow.mp4", n=30, rate=4)) as video:
        assert [len(piece.crops) for piece in pieces(video, 64)] == [30]


def test_a_long_video_becomes_several_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashlips_edge.training.pieces.MAX_NS", 1_200_000_000)
    path = write_faces(tmp_path / "long.mp4", n=64)
    outcome, clips = prepare.prepare_video(path, tmp_path, 64, prepare.SHIPPED)
    assert outcome.startswith("2 kept without sound")
    assert [name.split(".")[1] for name in clips] == ["long~000", "long~001"]
    assert [len(np.load(str(members["crops.npy"]))) for members in clips.values()] == [30, 30]


def test_clips_of_a_video_are_never_called_like_another_video() -> None:
    several = [f"{prepare.clip_name(Path('a/talk.mp4'))}~{i:03d}" for i in range(2)]
    assert not {prepare.clip_name(Path(f"a/{name}.mp4")) for name in ("talk_000", "talk~000", "talk.001")} & set(several)


def test_two_libraries_in_one_folder_are_never_one_clip(run: Run, tmp_path: Path) -> None:
    for library in "ab":
        (tmp_path / library / "s1").mkdir(parents=True)
    first = shutil.copy(run[0] / "hushed.mp4", tmp_path / "a/s1/talk.mp4")
    second = write_faces(tmp_path / "b/s1/talk.mov", n=40)
    prepare.main([tmp_path / "a"], tmp_path / "clips", workers=1)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "clips").glob("*.tar"))
    for _ in range(2):
        with pytest.raises(UserError, match=rf"{second} and {first} would both be called s1\.talk; rename one"):
            prepare.main([tmp_path / "b"], tmp_path / "clips", workers=1)
        first.unlink(missing_ok=True)  # nor where the first is gone, as it is another video
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "clips").glob("*.tar"))


def test_a_video_that_was_moved_is_not_prepared_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a/s1").mkdir(parents=True)
    shutil.copy(run[0] / "mute.mp4", tmp_path / "a/s1/talk.mp4")
    prepare.main([tmp_path / "a"], tmp_path / "clips", workers=1)
    (tmp_path / "a").rename(tmp_path / "b")
    prepare.main([tmp_path / "b"], tmp_path / "clips", workers=1)
    manifest = json.loads((tmp_path / "clips/manifest.json").read_text())
    assert list(manifest["inputs"]) == [str(tmp_path / "b/s1/talk.mp4")] and len(manifest["shards"]) == 1


def test_of_clips_with_one_name_none_gets_the_sound_of_another(tmp_path: Path) -> None:
    crops = [np.full((2, 8, 8, 3), value, np.uint8) for value in range(3)]
    with Shards(tmp_path, 8) as shards:
        shards.add("first", 1, "1 kept", {"s1.talk": {"crops.npy": crops[0], "audio.npy": np.zeros(9, np.float32)}})
        shards.close_shard()
        shards.add("second", 1, "1 kept", {"s1.talk": {"crops.npy": crops[1]}})
    (tmp_path / "s1.talk").mkdir()
    np.save(tmp_path / "s1.talk/lips.npy", crops[0][..., 0])
    (clip,) = load_clips(tmp_path)
    assert np.array_equal(clip.crops, crops[1]) and set(clip.members) == {"crops", "lips"}
    np.save(tmp_path / "s1.talk/crops.npy", crops[2])
    (clip,) = load_clips(tmp_path)
    assert np.array_equal(clip.crops, crops[2]) and set(clip.members) == {"crops", "lips"}


def test_a_name_that_is_not_utf_8_costs_only_its_video(run: Run, tmp_path: Path, repo: Path) -> None:
    folder = tmp_path / "s1"
    folder.mkdir()
    for name in (b"caf\xe9.mp4", "caf\u00e9.mp4".encode(), b"m.mp4"):
        shutil.copy(run[0] / "mute.mp4", os.fsdecode(os.fsencode(folder) + b"/" + name))
    command = [sys.executable, "-m", "flashlips_edge.training.prepare", str(folder), "--out", str(tmp_path / "clips"), "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=repo)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    sentence = "1 dropped: its name, or that of a folder around it, is not UTF-8; rename it"
    assert f"s1/caf\\xe9.mp4: {sentence}" in done.stdout.decode() and "2 clips of 2 of 3 videos" in done.stdout.decode()
    assert [clip.name for clip in load_clips(tmp_path / "clips")] == ["s1.caf\u00e9", "s1.m"]
    inputs = json.loads((tmp_path / "clips/manifest.json").read_text(encoding="utf-8"))["inputs"]
    assert inputs[f"{folder}/caf\\xe9.mp4"]["outcome"] == sentence


def test_a_name_may_be_as_long_as_the_system_allows(run: Run, tmp_path: Path) -> None:
    """Folder and file of 255 bytes, alike to the last ones; the clips' names leave room for those of the next stages' files."""
    folder = tmp_path / ("\u6f22" * 85)
    folder.mkdir()
    for end in "abc":
        shutil.copy(run[0] / "mute.mp4", folder / ("\u00e9" * 125 + end + ".mp4"))
    prepare.main([folder], tmp_path / "clips", workers=1)
    names = [clip.name for clip in load_clips(tmp_path / "clips")]
    assert len(set(names)) == 3 and len({name.split(".")[0] for name in names}) == 1
    assert max(len(f".{name}~000.{'array' * 2}.npy".encode()) for name in names) <= 255
    pack.main(tmp_path / "clips", tmp_path / "clips.zip")
    pack.unpack(tmp_path / "clips.zip", tmp_path / "there", 160)
    assert [clip.name for clip in load_clips(tmp_path / "there")] == names


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such video"):
        prepare.main([tmp_path / "nobody.mp4"], tmp_path / "clips")
    with pytest.raises(UserError, match="or none in that folder"):
        prepare.main([tmp_path], tmp_path / "clips")
    with pytest.raises(UserError, match="--syncnet .* there is no such file"):
        prepare.main([tmp_path], tmp_path / "clips", syncnet=tmp_path / "none.safetensors")
    for name in ("a/talk.mp4", "b/a/talk.mov"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"would both be called a\.talk"):
        prepare.main([tmp_path], tmp_path / "clips")
    assert not (tmp_path / "clips").exists()
