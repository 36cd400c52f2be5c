"""The command line as a user meets it: recordings, a camera, wrong use, Ctrl-C."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from clips import write_clip
from faces import camera, face, mouth_level, number_of, numbered, speech, write_faces, write_speech
from tiny_bundle import tiny_bundle

from flashlips_edge import live_run, run
from flashlips_edge.bundle import Bundle
from flashlips_edge.media.audio_file import read_sound
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.talking import avatar as avatar_module
from flashlips_edge.talking.talker import Talker

SECOND_NS = 1_000_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """face.mp4, ten frames with sound; speech.wav, 0.8 s."""
    folder = tmp_path_factory.mktemp("media")
    write_faces(folder / "face.mp4", 10, sound=speech(0.4))
    write_speech(folder / "speech.wav", 0.8)
    return folder


@pytest.fixture
def lip_sync(bundle, tmp_path, monkeypatch) -> Callable[..., int]:
    """Runs the command line in an empty folder; gives its exit status."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: run.main(["--bundle", str(bundle.folder), "--threads", "1", *map(str, words)])


def frames_of(path: Path) -> list[Frame]:
    with VideoFile(path) as video:
        return list(video)


def start(bundle: Bundle, folder: Path, *words: object) -> subprocess.Popen:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "flashlips_edge.run", "--bundle", str(bundle.folder), "--threads", "1", *map(str, words)]
    root = Path(run.__file__).parent.parent
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root), "DISPLAY": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


FRAMES_LATER = rb"[1-9]\d+frame \["  # of the progress, once ten were shown


def read_until(process: subprocess.Popen, words: bytes) -> bytes:
    """What the process says on standard error up to these words, a regular expression."""
    said = b""
    while not re.search(words, said):
        more = os.read(process.stderr.fileno(), 4096)
        assert more, said.decode()
        said += more
    return said


def test_an_avatar_speaks_a_recording(lip_sync, media, capsys):
    assert lip_sync("--avatar", media / "face.mp4", "--audio", media / "speech.wav", "--out", "result.mp4") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("result.mp4\n20 frames in ")
    assert all(f"{stage} " in printed for stage in ("decode", "face", "crop", "speech", "networks", "paste", "encode"))
    frames = frames_of(Path("result.mp4"))
    assert [number_of(frame.image) for frame in frames] == [*range(10), *range(8, -1, -1), 1]
    assert min(mouth_level(frame.image) for frame in frames[8:]) > mouth_level(face()) + 10
    sound = read_sound("result.mp4")
    assert sound.sample_rate_hz == 16_000
    assert sound.duration_ns == pytest.approx(0.8 * SECOND_NS, abs=0.07 * SECOND_NS)


@pytest.mark.parametrize(("width", "height", "rate"), [(319, 239, Fraction(25)), (320, 240, Fraction(30000, 1001))], ids=["odd", "29.97"])
def test_size_and_frame_rate_are_the_avatars(lip_sync, media, tmp_path, width, height, rate):
    avatar = write_faces(tmp_path / "avatar.mp4", 8, rate, image=face()[:height, :width])
    assert lip_sync("--avatar", avatar, "--audio", media / "speech.wav", "--out", "result.mp4") == 0
    with VideoFile("result.mp4") as video:
        assert (video.width, video.height, video.frame_rate) == (width, height, rate)
        frames = list(video)
    assert len(frames) == -(-rate * 8 // 10)
    assert [frame.pts_ns for frame in frames] == pytest.approx([float(i * SECOND_NS / rate) for i in range(len(frames))], abs=20_000)


def test_the_place_of_the_result_has_a_default(lip_sync, media):
    assert lip_sync("--avatar", media / "face.mp4", "--audio", media / "face.mp4") == 0
    assert 10 <= len(frames_of(Path("out/face.mp4"))) <= 12  # AAC comes in blocks of 64 ms


@pytest.mark.parametrize("option", ["--avatar", "--audio"])
def test_the_default_place_is_never_what_is_read(lip_sync, media, option):
    Path("out").mkdir()
    source = Path(shutil.copy(media / "face.mp4", "out/face.mp4"))
    words = {"--avatar": media / "face.mp4", "--audio": media / "speech.wav", option: source}
    assert lip_sync(*(word for pair in words.items() for word in pair)) == 0
    assert source.read_bytes() == (media / "face.mp4").read_bytes()
    assert len(frames_of(Path("out/face-2.mp4"))) >= 10


@pytest.mark.parametrize("late", [True, False])
def test_it_is_said_where_no_face_was_found(lip_sync, media, monkeypatch, capsys, late):
    monkeypatch.setattr(avatar_module, "KEPT_BYTES", 1)
    pictures = [np.full((240, 320, 3), 90, np.uint8)] * 5 + [face()] * (5 if late else 0)
    write_clip(Path("late.mp4"), size=(320, 240), images=pictures)
    assert lip_sync("--avatar", "late.mp4", "--audio", media / "speech.wav", "--out", "result.mp4") == 0
    assert ("no face was found" in capsys.readouterr().err) != late


def test_a_driver_without_a_face_is_refused(lip_sync, media, tmp_path, capsys):
    driver = write_faces(tmp_path / "driver.mp4", 5, image=np.full((240, 320, 3), 90, np.uint8))
    assert lip_sync("--avatar", media / "face.mp4", "--driver", driver, "--out", "result.mp4") == 2
    assert f"--driver {driver}: no face was found in it" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["driver.mp4"]


def test_another_face_drives(lip_sync, media, tmp_path):
    driver = write_faces(tmp_path / "driver.mp4", 15, 30, sound=speech(0.5), image=face(2))
    assert lip_sync("--avatar", media / "face.mp4", "--driver", driver, "--out", "result.mp4") == 0
    frames = frames_of(Path("result.mp4"))
    assert len(frames) == 13  # half a second at the avatar's 25 frames per second
    assert mouth_level(frames[5].image) > mouth_level(face()) + 10
    assert read_sound("result.mp4").duration_ns == pytest.approx(0.5 * SECOND_NS, abs=0.07 * SECOND_NS)


def test_raw_pcm_on_standard_input(bundle, media, tmp_path):
    process = start(bundle, tmp_path, "--avatar", media / "face.mp4", "--audio", "-", "--sample-rate", 24000, "--out", "result.mp4")
    pcm = (speech(0.6, 24_000) * 32767).astype("<i2").tobytes()
    _, err = process.communicate(pcm, timeout=120)
    assert process.returncode == 0, err
    assert len(frames_of(tmp_path / "result.mp4")) == 15
    assert read_sound(tmp_path / "result.mp4").sample_rate_hz == 24_000


def test_a_real_clip(lip_sync, data_path):
    clip = data_path("test/grid_unseen/sbia1a.mpg")
    assert lip_sync("--avatar", clip, "--audio", clip, "--out", "result.mp4") == 0
    with VideoFile(clip) as video:
        for source, result in zip(video, frames_of(Path("result.mp4")), strict=True):
            above = slice(0, int(source.height * 0.4))
            assert np.abs(source.image[above].astype(int) - result.image[above]).mean() < 2


def test_a_camera_speaks_a_recording(lip_sync, tmp_path, capsys):
    with camera(numbered(12)) as url:
        assert lip_sync("--camera", url, "--audio", write_speech(tmp_path / "s.wav", 1.0), "--out", "result.mp4") == 0
    frames = frames_of(Path("result.mp4"))
    assert 25 <= len(frames) <= 75  # a second of speech, and its mouth closed
    assert max(mouth_level(frame.image) for frame in frames) > mouth_level(face()) + 10
    assert "sound and picture apart" in capsys.readouterr().out


def test_a_camera_alone_writes_until_ctrl_c_and_says_what_it_does(bundle, tmp_path):
    with camera(numbered(12)) as url:
        process = start(bundle, tmp_path, "--camera", url)
        said = read_until(process, FRAMES_LATER)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"lips from the" in said
    assert b"written to out/camera.mp4 until Ctrl-C" in said
    assert out.startswith(b"out/camera.mp4\n")
    assert len(frames_of(tmp_path / "out/camera.mp4")) >= 1
    assert read_sound(tmp_path / "out/camera.mp4").samples.size


def test_a_camera_that_does_not_open_is_all_that_is_said(lip_sync, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    assert lip_sync("--camera", "/dev/video99") == run.WRONG_USE
    said = capsys.readouterr().err
    assert said.startswith("flashlips_edge.run: --camera /dev/video99: there is no such device") and said.count("\n") == 1


@pytest.fixture
def dark(tmp_path) -> Path:
    """What a camera with its lens covered shows."""
    return write_clip(tmp_path / "dark.mp4", images=[np.zeros((48, 64, 3), np.uint8)] * 10)


def test_a_camera_that_is_dark_from_the_start_is_named_and_stops_at_ctrl_c(bundle, media, dark, tmp_path):
    process = start(bundle, tmp_path, "--camera", dark, "--audio", media / "speech.wav", "--out", "result.mp4")
    read_until(process, b"dark.mp4: its picture has been black for 1 s")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == run.WRONG_USE
    assert err.endswith(b"--out result.mp4: no frame came, so nothing was written\n")
    assert not (tmp_path / "result.mp4").exists()


def test_a_camera_that_is_dark_from_the_start_ends_after_its_seconds(lip_sync, media, dark):
    assert lip_sync("--camera", dark, "--audio", media / "speech.wav", "--seconds", 0.1, "--out", "result.mp4") == run.WRONG_USE
    assert not Path("result.mp4").exists()


def test_a_camera_that_is_dark_from_the_start_ends_with_its_window(lip_sync, media, dark, monkeypatch, capsys):
    shown = []

    class ClosedSoon:
        def __init__(self, title: str):
            pass

        def __enter__(self) -> ClosedSoon:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def show(self, frame: Frame) -> bool:
            shown.append(frame.image)
            return len(shown) < 2

    monkeypatch.setattr(live_run, "Window", ClosedSoon)
    monkeypatch.setattr(run.window, "why_none", lambda: None)
    assert lip_sync("--camera", dark, "--audio", media / "speech.wav", "--display") == 0
    assert len(shown) == 2 and not np.any(shown)
    assert "0 frames in" in capsys.readouterr().out


def test_a_camera_listens_to_a_pipe(bundle, tmp_path):
    with camera(numbered(12)) as url:
        process = start(bundle, tmp_path, "--camera", url, "--audio", "-", "--out", "result.mp4")
        _, err = process.communicate((speech(1.0) * 32767).astype("<i2").tobytes(), timeout=120)
    assert process.returncode == 0, err
    frames = frames_of(tmp_path / "result.mp4")
    assert 1.0 * SECOND_NS < frames[-1].pts_ns
    sound = read_sound(tmp_path / "result.mp4")
    heard = np.flatnonzero(np.abs(sound.samples).max(1) > 0.05) / sound.sample_rate_hz
    assert 0.8 < heard[-1] - heard[0] < 1.2
    assert abs(sound.duration_ns - frames[-1].pts_ns) < 0.2 * SECOND_NS


def test_a_camera_drives_an_avatar(lip_sync, media):
    with camera(numbered(12, face(2))) as url:
        assert lip_sync("--avatar", media / "face.mp4", "--driver", f"camera:{url}", "--seconds", 0.8, "--out", "result.mp4") == 0
    frames = frames_of(Path("result.mp4"))
    assert 1 <= len(frames) <= 30
    assert mouth_level(frames[-1].image) > mouth_level(face()) + 10


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("live", [[], ["--live"]], ids=["as fast as it can", "live"])
def test_a_text_is_spoken(lip_sync, media, live, capsys):
    assert lip_sync("--avatar", media / "face.mp4", "--text", "Good morning to you.", "--out", "result.mp4", *live) == 0
    frames = frames_of(Path("result.mp4"))
    assert max(mouth_level(frame.image) for frame in frames) > mouth_level(face()) + 5
    sound = read_sound(Path("result.mp4"))
    assert np.abs(sound.samples).max() > 0.1
    assert abs(sound.duration_ns - frames[-1].pts_ns) < 0.2 * SECOND_NS


def test_a_recording_is_never_written_over(lip_sync, media, capsys):
    Path("result.mp4").write_text("dear to somebody")
    assert lip_sync("--avatar", media / "face.mp4", "--live", "--audio", media / "speech.wav", "--out", "result.mp4") == 2
    assert "result.mp4: it is there already" in capsys.readouterr().err
    assert Path("result.mp4").read_text() == "dear to somebody"


def test_a_recorded_face_drives_a_camera(lip_sync, tmp_path):
    driver = write_faces(tmp_path / "driver.mp4", 15, image=face(2), sound=speech(0.6))
    with camera(numbered(12)) as url:
        assert lip_sync("--camera", url, "--driver", driver, "--out", "result.mp4") == 0
    assert 0.5 * SECOND_NS < frames_of(Path("result.mp4"))[-1].pts_ns < 3 * SECOND_NS
    assert np.abs(read_sound(Path("result.mp4")).samples).max() > 0.1


def test_ctrl_c_leaves_a_file_that_plays(bundle, media, tmp_path):
    sound = write_speech(tmp_path / "long.wav", 60)
    process = start(bundle, tmp_path, "--avatar", media / "face.mp4", "--audio", sound, "--out", "result.mp4")
    said = read_until(process, rb"frame/s\]")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == run.STOPPED, said + err
    assert b"up to where it was stopped" in out and b"Traceback" not in err
    frames = frames_of(tmp_path / "result.mp4")
    assert 1 <= len(frames) < 1500
    duration_ns = frames[-1].pts_ns + SECOND_NS // 25
    assert read_sound(tmp_path / "result.mp4").duration_ns == pytest.approx(duration_ns, abs=0.1 * SECOND_NS)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_ctrl_c_before_the_first_frame_leaves_nothing(lip_sync, media, monkeypatch, capsys):
    def use_avatar(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Talker, "use_avatar", use_avatar)
    assert lip_sync("--avatar", media / "face.mp4", "--audio", media / "speech.wav", "--out", "result.mp4") == run.STOPPED
    assert capsys.readouterr().err == "flashlips_edge.run: stopped; no unfinished file is left\n"
    assert list(Path().iterdir()) == []


def test_a_file_that_breaks_off_is_used_as_far_as_it_goes(lip_sync, media, tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", images=numbered(40), size=(320, 240), options={"crf": "8", "g": "5"})
    data = whole.read_bytes()

    fast = tmp_path / "fast.mp4"
    with av.open(str(whole)) as source, av.open(str(fast), "w", options={"movflags": "+faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    fast.write_bytes(fast.read_bytes()[: len(data) * 2 // 3])
    assert lip_sync("--avatar", fast, "--audio", media / "speech.wav", "--out", "result.mp4") == 0
    assert len(frames_of(Path("result.mp4"))) == 20


FACE, SPEECH = "--avatar {media}/face.mp4", "--audio {media}/speech.wav"
WRONG = {
    "nothing": ("", "give either --avatar VIDEO|FOLDER or --camera INDEX|DEVICE|URL"),
    "avatar and camera": (f"{FACE} --camera 0 {SPEECH}", "not both"),
    "no lips": (FACE, "give --audio FILE|-, --text TEXT or --driver VIDEO|camera:N"),
    "audio and driver": (f"{FACE} {SPEECH} --driver {{media}}/face.mp4", "give either --audio or --driver"),
    "unknown option": (f"{FACE} {SPEECH} --quality high", "--quality"),
    "threads not a number": (f"{FACE} {SPEECH} --threads two", "--threads: invalid int value: 'two'"),
    "threads out of range": (f"{FACE} {SPEECH} --threads 0", "--threads 0 is out of range: 1 to 256"),
    "sample rate without stdin": (f"{FACE} {SPEECH} --sample-rate 8000", "--sample-rate 8000"),
    "sample rate out of range": (f"{FACE} --audio - --sample-rate 12", "--sample-rate 12 is out of range"),
    "seconds of a recording": (f"{FACE} {SPEECH} --seconds 3", "--seconds 3"),
    "seconds out of range": ("--camera 0 --seconds -1", "--seconds -1 is out of range"),
    "missing avatar": (f"--avatar {{bad}}/none.mp4 {SPEECH}", "--avatar {bad}/none.mp4: there is no such file"),
    "text as a video": (f"--avatar {{bad}}/text.mp4 {SPEECH}", "--avatar {bad}/text.mp4: "),
    "no bytes": (f"--avatar {{bad}}/empty.mp4 {SPEECH}", "--avatar {bad}/empty.mp4: the file is empty"),
    "no video stream": (f"--avatar {{media}}/speech.wav {SPEECH}", "--avatar {media}/speech.wav: it holds no pictures"),
    "broken off": (f"--avatar {{bad}}/broken.mp4 {SPEECH}", "--avatar {bad}/broken.mp4: "),
    "empty folder": (f"--avatar {{bad}}/folder {SPEECH}", "--avatar {bad}/folder: the folder holds no picture and no video"),
    "missing audio": (f"{FACE} --audio {{bad}}/none.wav", "--audio {bad}/none.wav: there is no such file"),
    "no sound": (f"{FACE} --audio {{bad}}/mute.mp4", "--audio {bad}/mute.mp4: there is no sound in it"),
    "sound of no length": (f"{FACE} --audio {{bad}}/none_said.wav", "--audio {bad}/none_said.wav: "),
    "text as sound": (f"{FACE} --audio {{bad}}/text.mp4", "--audio {bad}/text.mp4: "),
    "missing driver": (f"{FACE} --driver {{bad}}/none.mp4", "--driver {bad}/none.mp4: there is no such file"),
    "two voices": (f"{FACE} {SPEECH} --text Hello", "give either --audio or --text, not both"),
    "no such voice": (f"{FACE} --text Hello --voice parrot:x", "--voice parrot:x: give espeak:LANGUAGE"),
    "loudspeaker without a live run": (f"{FACE} {SPEECH} --loudspeaker", "--loudspeaker is for a live run"),
    "the result is the source": (f"{FACE} {SPEECH} --out {{media}}/face.mp4", "is what --avatar reads: give another place"),
    "the result is in the source": (f"--avatar {{media}} {SPEECH} --out {{media}}/face.mp4", "is what --avatar reads: give another place"),
    "the result is a folder": (f"{FACE} {SPEECH} --out {{bad}}/folder.mp4", "--out {bad}/folder.mp4: this is a folder"),
    "driver without a camera": (f"{FACE} --driver camera:", "--driver camera: names no camera"),
    "no camera": ("--camera /dev/video99", "--camera /dev/video99: there is no such device"),
    "no stream": ("--camera http://127.0.0.1:9/", "--camera http://127.0.0.1:9/: it cannot be opened"),
    "no driving camera": (f"{FACE} --driver camera:/dev/video99", "--driver /dev/video99: there is no such device"),
    "unknown bundle": (f"{FACE} {SPEECH} --bundle nono", "--bundle nono: "),
    "missing detector": (f"{FACE} {SPEECH} --detector {{bad}}/none.onnx", "--detector {bad}/none.onnx: no such file"),
    "a detector that is none": (f"{FACE} {SPEECH} --detector {{bad}}/text.mp4", "--detector {bad}/text.mp4: not a YuNet model"),
    "a name without mp4": (f"{FACE} {SPEECH} --out result.gif", "--out result.gif: the name must end in .mp4"),
    "a place that is none": (f"{FACE} {SPEECH} --out {{bad}}/text.mp4/result.mp4", "text.mp4/result.mp4"),
    "no display": (f"{FACE} {SPEECH} --display", "--display: "),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory, media) -> Path:
    """Files that are not what their names say."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.mp4").write_text("This is a letter, not a video.\n" * 20)
    (folder / "empty.mp4").touch()
    (folder / "folder").mkdir()
    (folder / "folder.mp4").mkdir()
    (folder / "broken.mp4").write_bytes((media / "face.mp4").read_bytes()[:3000])
    write_faces(folder / "mute.mp4", 3)
    soundfile.write(folder / "none_said.wav", np.zeros(0, np.float32), 16_000)
    return folder


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_is_one_sentence_and_leaves_nothing(what, lip_sync, media, bad, capsys, monkeypatch):
    words, named = (text.format(media=media, bad=bad) for text in WRONG[what])
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    words = words.split()
    place = [] if "--out" in words or "--display" in words else ["--out", "made/result.mp4"]
    assert lip_sync(*words, *place) == run.WRONG_USE
    said = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert said.startswith("flashlips_edge.run: ")
    assert named in said
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_wrong_use_in_a_process_of_its_own(bundle, tmp_path):
    process = start(bundle, tmp_path, "--avatar", "none.mp4", "--audio", "none.wav")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == b""
    assert err.count(b"\n") == 1 and b"Traceback" not in err


def test_empty_standard_input_is_wrong_use(bundle, media, tmp_path):
    process = start(bundle, tmp_path, "--avatar", media / "face.mp4", "--audio", "-")
    _, err = process.communicate(b"", timeout=60)
    assert process.returncode == 2
    assert err.startswith(b"flashlips_edge.run: --audio -: standard input held no sound")
