"""The command that prepares an avatar: the folder it writes, and its refusals in one sentence that leave nothing behind."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import clicks, write_clip
from faces import HEIGHT, WIDTH, face, number_of, numbered, write_faces, write_speech
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import tiny_bundle

from flashlips_edge import prepare, run
from flashlips_edge.errors import UserError
from flashlips_edge.face.detect import HaarDetector
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter
from flashlips_edge.talking.avatar_folder import AvatarFolder, write_record
from flashlips_edge.talking.looped import LoopedAvatar
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.prepared import at_rate, load


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle")).folder


@pytest.fixture
def idle(tmp_path: Path) -> Path:
    return write_faces(tmp_path / "idle.mp4", 10)


def changed(path: Path, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite arrays of the file."""
    with np.load(path) as arrays:
        found = dict(arrays)
    np.savez(path, **{**found, **{name: change(found[name]) for name, change in changes.items()}})


def words(idle: Path, out: Path, bundle: Path, *more: str) -> list[str]:
    return [str(idle), "--out", str(out), "--consent", "Ada, for this test", "--bundle", str(bundle), "--threads", "1", *more]


def test_the_command_writes_a_whole_folder_and_says_so(idle: Path, bundle: Path, tmp_path: Path, capsys) -> None:
    nod = write_faces(tmp_path / "nod.mp4", 6)
    out = tmp_path / "avatars" / "ada"
    assert prepare.main(words(idle, out, bundle, "--clip", f"nod={nod}")) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: idle 10 pictures, nod 6 pictures; ") and " MB; " in said and said.endswith(" s\n")
    assert sorted(path.name for path in out.iterdir()) == ["avatar.json", "identity.npz", "idle.mp4", "idle.npz", "nod.mp4", "nod.npz"]
    assert json.loads((out / "avatar.json").read_text())["consent"] == "Ada, for this test"
    assert [path.name for path in out.parent.iterdir()] == ["ada"]  # nothing half-made lies beside it


def test_a_prepared_avatar_serves_the_other_commands_too(idle: Path, bundle: Path, tmp_path: Path) -> None:
    assert prepare.main(words(idle, tmp_path / "ada", bundle)) == 0
    speech = write_speech(tmp_path / "speech.wav", 0.4)
    command = ["--avatar", str(tmp_path / "ada"), "--audio", str(speech), "--out", str(tmp_path / "out.mp4"), "--bundle", str(bundle)]
    assert run.main([*command, "--threads", "1"]) == 0
    with VideoFile(tmp_path / "out.mp4") as video:
        assert [number_of(frame.image) for frame in video] == list(range(10))


def test_a_tilted_head_is_kept_and_an_older_folder_has_none(idle: Path, bundle: Path, tmp_path: Path) -> None:
    prepare.prepare(idle, {}, tmp_path / "ada", "Ada", bundle, threads=1)
    path = tmp_path / "ada" / "idle.npz"
    with np.load(path) as arrays:
        found = dict(arrays)
    found["boxes"][:, 4] = 0.25
    np.savez(path, **found)
    assert [box.angle for box in load(tmp_path / "ada", "idle").boxes if box] == [0.25] * 10
    changed(path, boxes=lambda boxes: boxes[:, :4])
    assert [box.angle for box in load(tmp_path / "ada", "idle").boxes if box] == [0.0] * 10


def test_sound_and_the_cameras_notes_stay_out_of_the_folder(bundle: Path, tmp_path: Path) -> None:
    source = write_faces(tmp_path / "plain.mp4", 5, sound=clicks(0.2, 16_000))
    with av.open(str(source)) as old, av.open(str(tmp_path / "noted.mp4"), "w", options={"movflags": "use_metadata_tags"}) as new:
        new.metadata["location"] = "+48.2082+016.3738/"
        streams = {stream: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                new.mux(packet)
    assert b"+48.2082" in (tmp_path / "noted.mp4").read_bytes()
    assert prepare.main(words(tmp_path / "noted.mp4", tmp_path / "ada", bundle)) == 0
    assert b"+48.2082" not in (tmp_path / "ada" / "idle.mp4").read_bytes()
    with VideoFile(tmp_path / "ada" / "idle.mp4") as video:
        assert not video.has_audio


@pytest.mark.parametrize("said", [None, False, [], {}, 0, "\u200b", " - "])
def test_what_names_nobody_is_no_consent(idle: Path, bundle: Path, tmp_path: Path, said: object) -> None:
    given = tmp_path / "given"
    given.mkdir()
    shutil.copy(idle, given / "video.mp4")
    write_record(given, "video.mp4", "Ada", {})
    record = json.loads((given / "avatar.json").read_text()) | {"consent": said, "bundle": None}
    (given / "avatar.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="--consent is missing or empty"):
        prepare.prepare(given, {}, tmp_path / "out", None, bundle)


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(16, 11)])
def test_pixels_become_square(bundle: Path, tmp_path: Path, aspect: Fraction) -> None:
    """What shows an avatar live knows no other pixels: its recording, the page and the window would squeeze the face."""
    width, height = (int(WIDTH / aspect), HEIGHT) if aspect > 1 else (WIDTH, int(HEIGHT * aspect))
    width, height = width // 2 * 2, height // 2 * 2
    squeezed = Frame(cv2.resize(face(), (width, height), interpolation=cv2.INTER_AREA))
    with VideoWriter(tmp_path / "squeezed.mp4", width, height, Fraction(25), pixel_aspect=aspect) as writer:
        for i in range(10):
            writer.write(squeezed, i * 40_000_000)
    prepare.prepare(tmp_path / "squeezed.mp4", {"wave": tmp_path / "squeezed.mp4"}, tmp_path / "avatar", "self", bundle)
    clip = load(tmp_path / "avatar", "idle")
    assert abs(clip.video.width - WIDTH) <= 2 and abs(clip.video.height - HEIGHT) <= 2
    shown = cv2.resize(clip.video.group(0)[3].image, (WIDTH, HEIGHT))
    assert np.abs(shown.astype(int) - face()).mean() < 4
    assert clip.boxes[3] is not None and clip.boxes[3].width == pytest.approx(clip.boxes[3].height, rel=0.1)
    clip.video.close()
    with VideoFile(tmp_path / "avatar" / "idle.mp4") as video:
        assert video.pixel_aspect == 1


def test_clips_come_to_the_idle_videos_rate(bundle: Path, tmp_path: Path) -> None:
    idle = write_faces(tmp_path / "idle.mp4", 12, Fraction(30000, 1001))
    slow = write_faces(tmp_path / "slow.mp4", 6, 15)
    assert prepare.main(words(idle, tmp_path / "ada", bundle, "--clip", f"slow={slow}")) == 0
    with VideoFile(tmp_path / "ada" / "slow.mp4") as video:
        assert video.frame_rate == Fraction(30000, 1001)
        assert [number_of(frame.image) for frame in video] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


@given(st.fractions(Fraction(5), Fraction(120)), st.lists(st.integers(1, 3_000_000_000), max_size=20))
def test_every_tick_shows_the_picture_of_its_time(rate: Fraction, gaps: list[int]) -> None:
    pictures = [Frame(face(), pts) for pts in np.cumsum([0, *gaps]).tolist()]
    shown = list(at_rate(pictures, rate))
    order = [frame.pts_ns for frame in shown]
    assert order == sorted(order) and order[-1] == pictures[-1].pts_ns
    if all(gap <= 1_000_000_000 for gap in gaps):
        for tick, frame in enumerate(shown[:-1]):
            until_ns = (tick + Fraction(1, 2)) * 1_000_000_000 / rate
            assert frame.pts_ns == max(picture.pts_ns for picture in pictures if picture.pts_ns <= until_ns)
    assert len(shown) <= (len(pictures) + 1) * (rate + 2)  # a gap of hours is no loop of hours


def test_a_personal_avatar_keeps_its_networks_and_its_consent(idle: Path, bundle: Path, tmp_path: Path) -> None:
    personal = tmp_path / "personal"
    personal.mkdir()
    shutil.copyfile(idle, personal / "video.mp4")
    shutil.copytree(bundle, personal / "bundle")
    write_record(personal, "video.mp4", "Ada, for our lobby", {})
    assert json.loads((personal / "avatar.json").read_text())["schema"] == 1
    prepare.prepare(personal, {}, tmp_path / "live", None, threads=1)
    folder = AvatarFolder.open(tmp_path / "live")
    assert folder is not None and folder.bundle == tmp_path / "live" / "bundle"
    assert folder.record["consent"] == "Ada, for our lobby"
    again = prepare.prepare(tmp_path / "live", {"nod": idle}, tmp_path / "more", None, threads=1)  # a prepared one may be given, too
    assert again.clips == {"idle": 10, "nod": 10}


def blank(path: Path) -> Path:
    return write_faces(path, 5, image=np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def pair(path: Path) -> Path:
    images = [np.concatenate([face(3), face(4)], axis=1)] * 5
    return write_clip(path, size=(2 * WIDTH, HEIGHT), images=images)


def broken(path: Path) -> Path:
    path.write_bytes(b"no video" * 100)
    return path


def small(path: Path) -> Path:
    return write_faces(path, 3, image=face()[:200])


def good(path: Path) -> Path:
    return write_faces(path, 3)


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (blank, None, "no face was found in its 5 pictures"),
        (pair, None, "it shows several faces"),
        (broken, None, "it is damaged, cut off or of another kind"),
        (Path, None, "there is no such file"),
        (small, "nod", "320 x 200 pixels, but the idle video has 320 x 240"),
        (blank, "nod", "--clip nod .*no face was found"),
        (broken, "nod", "--clip nod .*it is damaged"),
        (good, "idle", "give NAME=VIDEO"),
        (good, "../up", "give NAME=VIDEO"),
        (good, "Nod", "give NAME=VIDEO"),
    ],
)
def test_a_video_that_will_not_do_is_refused(
    make: Callable[[Path], Path], name: str | None, says: str, idle: Path, bundle: Path, tmp_path: Path, capsys
) -> None:
    video = make(tmp_path / "given.mp4")
    before = sorted(tmp_path.iterdir())
    given = words(video, tmp_path / "out", bundle) if name is None else words(idle, tmp_path / "out", bundle, "--clip", f"{name}={video}")
    assert prepare.main(given) == 2
    refusal = capsys.readouterr().err.strip().splitlines()[-1]
    assert refusal.startswith("flashlips_edge.prepare: ")
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(refusal)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--consent": " "}, "--consent is missing or empty"),
        ({"--consent": None}, "--consent is missing or empty"),
        ({"--out": "idle.mp4"}, "exists already"),
        ({"--out": "idle.mp4/inside"}, "it cannot be written"),
        ({"--bundle": "nanno"}, "did you mean nano"),
        ({"--detector": "none.onnx"}, "no such file; give a YuNet"),
        ({"--threads": "0"}, "out of range"),
        ({"--clip": "nod"}, "give NAME=VIDEO"),
        ({"--clip": "identity=idle.mp4"}, "and not idle or identity"),
        ({"--what": "x"}, "--help names every option"),
    ],
)
def test_wrong_use_is_refused_on_the_command_line(
    change: dict[str, str | None], says: str, idle: Path, bundle: Path, tmp_path: Path
) -> None:
    options = {"--out": "out", "--consent": "Ada", "--bundle": str(bundle)} | change
    given = [word for option, value in options.items() if value is not None for word in (option, value)]
    done = subprocess.run(
        [sys.executable, "-m", "flashlips_edge.prepare", str(idle), *given], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["idle.mp4"]


@pytest.mark.parametrize("room", [1_000, 100_000, 300_000])
def test_a_full_disk_is_named_and_nothing_is_left(room: int, idle: Path, bundle: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    command = [sys.executable, "-B", "-m", "flashlips_edge.prepare", *words(idle, tmp_path / "out", bundle)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=60)
    assert done.returncode == 2
    assert "File too large" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["idle.mp4"]


def test_ctrl_c_leaves_nothing(idle: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Networks, "encode", interrupted)
    assert prepare.main(words(idle, tmp_path / "out", bundle)) == 130
    assert capsys.readouterr().err.endswith("stopped, nothing was written\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["idle.mp4"]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("idle.mp4", lambda path: path.write_bytes(path.read_bytes()[:200])),
        ("nod.mp4", lambda path: path.unlink()),
        ("idle.npz", lambda path: path.write_bytes(path.read_bytes()[:1000])),
        ("nod.npz", lambda path: path.unlink()),
        ("nod.npz", lambda path: shutil.copyfile(path.with_name("idle.npz"), path)),
        ("idle.npz", lambda path: changed(path, boxes=lambda boxes: boxes[:, :3])),
        ("nod.npz", lambda path: changed(path, back_to=lambda _: np.int64(10))),
        ("nod.npz", lambda path: changed(path, back_to=lambda _: np.int64(-1))),
        ("idle.npz", lambda path: changed(path, back_to=lambda _: np.float64("nan"))),
        ("idle.npz", lambda path: changed(path, boxes=lambda boxes: boxes * np.inf)),
        ("idle.npz", lambda path: changed(path, boxes=lambda boxes: boxes * 0)),
        ("idle.npz", lambda path: changed(path, latents=lambda latents: latents * np.nan)),
        ("idle.npz", lambda path: changed(path, latents=lambda latents: latents.astype("U8"))),
        ("nod.mp4", lambda path: write_faces(path, 6, image=cv2.resize(face(), None, fx=2, fy=2))),
        ("identity.npz", lambda path: np.savez(path, crops=np.array([{}], object))),
        ("identity.npz", lambda path: changed(path, lips=lambda lips: lips * np.nan)),
        ("identity.npz", lambda path: changed(path, lips=lambda lips: lips[:0])),
        ("identity.npz", lambda path: changed(path, lips=lambda lips: np.concatenate([lips, lips]))),
        ("identity.npz", lambda path: changed(path, crops=lambda crops: crops.astype(np.float32))),
        ("avatar.json", lambda path: path.write_text(path.read_text().replace('"schema": 2', '"schema": Infinity'))),
        ("avatar.json", lambda path: path.write_text(path.read_text().replace('"nod"', '"../nod"'))),
        ("avatar.json", lambda path: path.write_text('{"schema": 2, "video": "idle.mp4", "clips": 3}')),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(file: str, damage: Callable[[Path], object], idle, bundle, tmp_path) -> None:
    folder = tmp_path / "ada"
    prepare.prepare(idle, {"nod": write_faces(tmp_path / "nod.mp4", 6)}, folder, "Ada", bundle, threads=1)
    damage(folder / file)
    with pytest.raises(UserError, match=r"--avatar .*again with python -m flashlips_edge|prepare the avatar again"):
        LoopedAvatar.open(folder, Networks(tiny_bundle(tmp_path / "b"), threads=1), HaarDetector())


def test_numbers_are_kept_through_preparing(bundle: Path, tmp_path: Path) -> None:
    for number, picture in enumerate(numbered(4)):
        write_clip(tmp_path / f"{number}.png", "png", (WIDTH, HEIGHT), images=[picture], n=1, pixels="rgb24")
    prepare.prepare(tmp_path, {}, tmp_path / "ada", "Ada", bundle, threads=1)
    with VideoFile(tmp_path / "ada" / "idle.mp4") as video:
        assert [number_of(frame.image) for frame in video] == [0, 1, 2, 3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_run_that_is_ended_leaves_no_folder_or_the_next_run_removes_it(number: int, bundle: Path, tmp_path: Path) -> None:
    idle, out = write_faces(tmp_path / "idle.mp4", 400), tmp_path / "avatars" / "ada"
    command = [sys.executable, "-m", "flashlips_edge.prepare", *words(idle, out, bundle)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(out.parent.glob(".ada.*/avatar")):
            time.sleep(0.001)
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == (143 if number == signal.SIGTERM else -number), errors
    assert "Traceback" not in errors and len(list(out.parent.iterdir())) == (number == signal.SIGKILL)
    assert prepare.main(words(write_faces(tmp_path / "short.mp4", 10), out, bundle)) == 0
    assert list(out.parent.iterdir()) == [out]
