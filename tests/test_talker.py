"""The embedding API on a rendered face, with a bundle whose arithmetic is known."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_clip
from faces import HEIGHT, MOUTH, WIDTH, face, mouth_level, number_of, speech, write_faces
from tiny_bundle import tiny_bundle

from flashlips_edge.bundle import Bundle
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine
from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.talking import avatar as avatar_module
from flashlips_edge.talking.talker import Talker

FRAME_NS = 40_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Ten numbered frames of a face."""
    return write_faces(tmp_path_factory.mktemp("clip") / "face.mp4", 10)


@pytest.fixture
def talker(bundle) -> Talker:
    with Talker(bundle, threads=1) as talker:
        yield talker


def there_and_back(n: int, length: int) -> list[int]:
    turn = [*range(n), *range(n - 2, 0, -1)]
    return [turn[i % len(turn)] for i in range(length)]


def test_avatar_is_looped_there_and_back_as_long_as_the_speech(talker, clip):
    talker.use_avatar(clip)
    talker.push_audio(speech(1.2))
    talker.finish()
    frames = list(talker.frames())
    assert [number_of(frame.image) for frame in frames] == there_and_back(10, 30)
    assert [frame.pts_ns for frame in frames] == [i * FRAME_NS for i in range(30)]
    assert len(talker.avatar.latents) == 10


def test_a_picture_is_encoded_once_though_it_is_edited_and_referred_to(talker, clip, monkeypatch):
    encoded: list[int] = []
    encode = talker.networks.chain.encode
    monkeypatch.setattr(talker.networks.chain, "encode", lambda crops: (encoded.append(len(crops)), encode(crops))[1])
    talker.use_avatar(clip)
    talker.push_audio(speech(1.2))
    talker.finish()
    assert len(list(talker.frames())) == 30
    assert sum(encoded) == 10, "the avatar's pictures, all of which are looked at to know the face"


@pytest.mark.parametrize("frame_rate", [24, 30, 60])
def test_a_looped_avatar_of_any_frame_rate_ends_with_the_speech(talker, tmp_path, frame_rate):
    talker.use_avatar(write_clip(tmp_path / "face.mp4", size=(WIDTH, HEIGHT), frame_rate=Fraction(frame_rate), images=[face()] * 20))
    talker.push_audio(speech(2.0))
    talker.finish()
    assert len(list(talker.frames())) == 2 * frame_rate


def test_a_recording_that_is_not_kept_in_memory_loops_the_same(talker, clip, monkeypatch):
    monkeypatch.setattr(avatar_module, "KEPT_BYTES", 3 * WIDTH * HEIGHT * 3 // 2)
    monkeypatch.setattr(avatar_module, "CHUNK_BYTES", 2 * WIDTH * HEIGHT * 3 // 2)
    talker.use_avatar(clip)
    talker.push_audio(speech(1.6))
    talker.finish()
    assert [number_of(frame.image) for frame in talker.frames()] == there_and_back(10, 40)


def test_what_is_not_kept_in_memory_is_learned_from_when_it_is_first_shown(talker, tmp_path, monkeypatch):
    monkeypatch.setattr(avatar_module, "KEPT_BYTES", 3 * WIDTH * HEIGHT * 3 // 2)
    avatar = talker.use_avatar(write_faces(tmp_path / "face.mp4", 30))
    assert len(avatar.identity.references.lips) == avatar.known == 3
    mouth = avatar.identity.lips
    talker.push_audio(speech(3.6))
    talker.finish()
    assert len(list(talker.frames())) == 90
    assert len(avatar.identity.references.lips) == 3 + 6, "five pictures a second of the other 27, each once"
    assert avatar.identity.lips is mouth


def test_only_the_mouth_changes(talker, clip):
    talker.use_avatar(clip)
    talker.push_audio(speech(0.4))
    talker.finish()
    with VideoFile(clip) as video:
        for source, result in zip(video, talker.frames(), strict=True):
            changed = np.abs(source.image.astype(int) - result.image).max(2) > 0
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            assert changed[MOUTH].mean() > 0.9
            assert rows.min() > HEIGHT * 0.4 and columns.min() > WIDTH * 0.2 and columns.max() < WIDTH * 0.8


def test_frames_without_a_face_pass_unchanged(talker, tmp_path):
    blank = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    talker.use_avatar(write_faces(tmp_path / "blank.mp4", 5, image=blank))
    talker.push_audio(speech(0.2))
    talker.finish()
    with VideoFile(tmp_path / "blank.mp4") as video:
        for source, result in zip(video, talker.frames(), strict=True):
            assert np.array_equal(source.image, result.image)


@pytest.mark.parametrize("late", [True, False])
def test_a_face_is_known_however_late_it_comes(talker, tmp_path, monkeypatch, late):
    monkeypatch.setattr(avatar_module, "KEPT_BYTES", 3 * WIDTH * HEIGHT * 3 // 2)
    pictures = [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 5 + [face()] * (5 if late else 0)
    avatar = talker.use_avatar(write_clip(tmp_path / "late.mp4", size=(WIDTH, HEIGHT), images=pictures))
    assert avatar.identity is None and not talker.knows_face
    talker.push_audio(speech(0.4))
    talker.finish()
    frames = list(talker.frames())
    assert talker.knows_face == late
    assert (mouth_level(frames[9].image) > mouth_level(face()) + 10) == late


def test_pull_frame_waits_for_the_speech_and_ends_with_it(talker, clip):
    talker.use_avatar(clip)
    assert talker.pull_frame() is None
    talker.push_audio(speech(5.6))
    pulled = []
    while (frame := talker.pull_frame()) is not None:
        pulled.append(frame)
    assert len(pulled) == 41  # a window is made when what follows it has been heard
    assert not talker.ended
    talker.finish()
    while (frame := talker.pull_frame()) is not None:
        pulled.append(frame)
    assert len(pulled) == 140
    assert talker.ended


def test_frames_one_at_a_time_and_all_at_once_are_the_same(bundle, clip):
    pictures = []
    for at_once in (True, False):
        with Talker(bundle, threads=1) as talker:
            talker.use_avatar(clip)
            talker.push_audio(speech(0.6))
            talker.finish()
            frames = talker.frames() if at_once else iter(talker.pull_frame, None)
            pictures.append([frame.image for frame in frames])
    assert len(pictures[0]) == len(pictures[1]) == 15
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(*pictures)) <= 2


def test_lips_follow_the_speech_and_close_in_silence(talker, clip):
    talker.use_avatar(clip)
    talker.push_audio(np.concatenate([speech(1.2), np.zeros(16_000 * 2, np.float32)]))
    talker.finish()
    spoken = [talker.lips.at(i * FRAME_NS) for i in range(80)]
    closed = talker.avatar.identity.lips.closed
    assert np.abs(spoken[15] - closed).max() > 0.1
    assert max(np.abs(lips - closed).max() for lips in spoken[35:]) < 0.02


def test_another_face_drives_at_its_own_times(talker, clip):
    talker.use_avatar(clip)
    bright, dark = face(), face() // 2
    for i, image in enumerate([bright, bright, bright, dark, dark, dark]):
        talker.push_face(Frame(image, i * 2 * FRAME_NS))
    talker.finish(end_ns=12 * FRAME_NS)
    lips = [float(talker.lips.at(i * FRAME_NS)[0]) for i in range(12)]
    assert lips[0] > 1.5 * lips[11]
    assert lips[4] > lips[5] > lips[6]  # in between, linear
    assert len(list(talker.frames())) == 12


def test_a_live_face_speaks_without_an_avatar(talker):
    talker.push_audio(speech(2), pts_ns=5_000_000_000, live=True)
    frames = [Frame(face(), 5_000_000_000 + i * FRAME_NS) for i in range(10)]
    results = [talker.lip_sync(frame) for frame in frames]
    assert [result.pts_ns for result in results] == [frame.pts_ns for frame in frames]
    assert mouth_level(results[5].image) > mouth_level(frames[5].image) + 20


def test_a_live_face_without_lips_is_shown_as_it_is(talker):
    assert np.array_equal(talker.lip_sync(Frame(face(), 0)).image, face())


def test_speech_may_be_pushed_by_another_thread(talker):
    def push() -> None:
        for piece in np.split(speech(4), 50):
            talker.push_audio(piece, live=True)

    thread = threading.Thread(target=push)
    thread.start()
    results = [talker.lip_sync(Frame(face(), i * FRAME_NS)) for i in range(20)]
    thread.join()
    assert len(results) == 20
    assert talker.lips.end_ns >= 3_000_000_000


def test_closing_ends_every_thread(bundle, clip):
    before = threading.active_count()
    with Talker(bundle, threads=1) as talker:
        talker.use_avatar(clip)
        talker.push_audio(speech(2))
        talker.finish()
        frames = talker.frames()
        next(frames)
        frames.close()
    assert threading.active_count() == before


def test_a_folder_of_pictures_is_an_avatar_whatever_is_hidden_in_it(talker, tmp_path):
    (tmp_path / ".result.mp4").touch()  # one that is being written
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), face()[:, :, ::-1])
    assert talker.use_avatar(tmp_path).frame_rate == Fraction(25)
    talker.push_audio(speech(0.4))
    talker.finish()
    assert len(list(talker.frames())) == 10


def test_pictures_of_two_sizes_are_refused(talker, tmp_path):
    write_faces(tmp_path / "a.mp4", 2)
    write_faces(tmp_path / "b.mp4", 2, image=face()[:200])
    with pytest.raises(UserError, match=r"b\.mp4: 320 x 200 pixels, but a\.mp4 has 320 x 240"):
        talker.use_avatar(tmp_path)


def test_the_engine_names_what_is_wrong_with_its_inputs(bundle, tmp_path):
    engine = OnnxRuntimeEngine(bundle.graph_path("lips_encoder"), threads=1)
    assert engine.run({"face": np.zeros((2, 3, 96, 96), np.float32)})["lips"].shape == (2, 12)
    assert engine.runs == 1 and engine.seconds > 0
    with pytest.raises(ValueError, match="the graph takes"):
        engine.run({"image": np.zeros((1, 3, 96, 96), np.float32)})
    with pytest.raises(ValueError, match="face has shape"):
        engine.run({"face": np.zeros((1, 3, 95, 96), np.float32)})
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(UserError, match=r"text\.onnx cannot be loaded"):
        OnnxRuntimeEngine(tmp_path / "text.onnx")
