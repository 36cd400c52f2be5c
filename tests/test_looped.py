"""A looped avatar: the right picture for every tick, clips in between, and what happens when pictures cannot be had."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from faces import HEIGHT, WIDTH, face, number_of, numbered, write_faces
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import tiny_bundle

from flashlips_edge import prepare
from flashlips_edge.bundle import Bundle, write_manifest
from flashlips_edge.errors import UserError
from flashlips_edge.face.detect import HaarDetector
from flashlips_edge.media import decode_ahead
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.loop_video import LoopVideo, write_loop_video
from flashlips_edge.talking import looped
from flashlips_edge.talking.looped import NO_FACE, LoopedAvatar
from flashlips_edge.talking.networks import Networks

IDLE, NOD, FADE = 10, 30, 5  # pictures of the idle clip and of the other one, ticks of a fade
PATIENCE_NS = 10_000_000_000
FRAME_BYTES = WIDTH * HEIGHT * 3 // 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def networks(bundle) -> Networks:
    return Networks(bundle, threads=1)


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory) -> Path:
    """A prepared avatar: ten numbered pictures, and as a clip thirty darker ones of the face twelve pixels further right."""
    there = tmp_path_factory.mktemp("avatar")
    idle = write_faces(there / "idle.mp4", IDLE)
    nod = write_faces(there / "nod.mp4", NOD, image=np.roll(face(), 12, axis=1) // 5 * 4)
    prepare.prepare(idle, {"nod": nod}, there / "avatar", "Ada", bundle.folder, threads=1)
    return there / "avatar"


def opened(path: Path, networks: Networks) -> LoopedAvatar:
    """The avatar, which waits for its pictures however busy the machine is."""
    avatar = LoopedAvatar.open(path, networks, HaarDetector())
    avatar._wait_ns = PATIENCE_NS
    return avatar


@pytest.fixture
def avatar(folder, networks) -> LoopedAvatar:
    avatar = opened(folder, networks)
    yield avatar
    avatar.close()


def there_and_back(tick: int, count: int = IDLE) -> int:
    turn = [*range(count), *range(count - 2, 0, -1)]
    return turn[tick % len(turn)]


def test_idle_goes_there_and_back_and_ticks_may_be_skipped(avatar):
    for tick in [*range(25), 26, 29, 40, 41, 1000, 10**9 + 7]:
        target = avatar.target(tick)
        assert number_of(target.frame.image) == target.index == there_and_back(tick)
        assert target.frame.pts_ns == tick * 40_000_000
        assert target.crop is not None
    assert avatar.counters.repeated == 0


def test_a_clip_is_played_once_and_then_idle_again(avatar):
    avatar.target(3)
    avatar.play("nod")
    indices = [avatar.target(tick).index for tick in range(4, 4 + 60)]
    assert indices[:FADE] == [None] * FADE
    assert indices[FADE : NOD - FADE] == [IDLE + i for i in range(FADE, NOD - FADE)]
    assert indices[NOD - FADE : NOD] == [None] * FADE
    idle = indices[NOD:]
    start = next(i for i in range(18) if there_and_back(i) == idle[0] and there_and_back(i + 1) == idle[1])
    assert idle == [there_and_back(start + i) for i in range(len(idle))]


def test_a_fade_has_no_jump_and_moves_the_face_smoothly(avatar):
    shown = [avatar.target(tick) for tick in range(4)]
    avatar.play("nod")
    shown += [avatar.target(tick) for tick in range(4, 16)]
    level = [float(target.frame.image[100:200, 100:220].mean()) for target in shown]
    place = [target.left + float(target.crop.transform[0, 2]) / -float(target.crop.transform[0, 0]) for target in shown]
    for values in (level, place):
        whole = abs(values[-1] - values[3])
        assert whole > 5
        assert np.abs(np.diff(values)).max() < 0.45 * whole
    assert place[-1] - place[3] == pytest.approx(12, abs=1.5)


def test_the_faces_of_a_fade_lie_on_each_other(avatar):
    avatar.target(0)
    avatar.play("nod")
    middle = [avatar.target(tick) for tick in range(1, 4)][-1]  # half of each
    alone = avatar.target(12)
    eyes = [cv2.cvtColor(target.crop.image[30:80, 30:130], cv2.COLOR_RGB2GRAY).ravel() for target in (middle, alone)]
    assert np.corrcoef(*eyes)[0, 1] > 0.97  # 0.86 where they are shown twice, each faint


def test_asked_for_while_fading_it_waits_for_the_end_of_the_fade(avatar):
    avatar.target(0)
    avatar.play("nod")
    avatar.target(1)
    avatar.play("nod")
    assert [avatar.target(tick).index for tick in range(2, 15)] == [None] * 9 + [IDLE + i for i in range(5, 9)]


def test_idle_can_be_asked_for(avatar):
    avatar.target(0)
    avatar.play("nod")
    avatar.target(1)
    avatar.target(10)
    avatar.play("idle")
    assert [avatar.target(tick).index is None for tick in range(11, 17)] == [True] * 5 + [False]
    assert avatar.target(17).index < IDLE
    before = avatar.target(18).index
    avatar.play("idle")  # nothing to change: no fade
    assert abs(avatar.target(19).index - before) == 1


def test_an_unknown_clip_is_refused(avatar):
    with pytest.raises(UserError, match="clip 'dance': this avatar has idle, nod"):
        avatar.play("dance")


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 1, 2, 7, 40, 1000]), st.sampled_from([None, None, None, "nod", "idle"])), max_size=40
    )
)
def test_whatever_is_asked_for_whenever_pictures_follow_each_other(folder, networks, steps):
    avatar = opened(folder, networks)
    tick, last = 0, None
    for step, clip in steps:
        if clip is not None:
            avatar.play(clip)
        tick += step
        index = avatar.target(tick).index
        if step == 1 and index is not None and last is not None:
            assert abs(index - last) == 1 or (index == last and index in (0, IDLE - 1))
        last = index
    indices = [avatar.target(tick + i).index for i in range(1, 2 * NOD + 3 * FADE)]
    assert all(index is not None and index < IDLE for index in indices[-10:])  # at rest again
    avatar.close()


def test_opening_a_prepared_avatar_runs_no_network(folder, bundle, monkeypatch):
    monkeypatch.setattr(Networks, "_run", lambda *_, **__: pytest.fail("a network was run"))
    avatar = opened(folder, Networks(bundle, threads=1))
    target = avatar.target(0)
    references = avatar.identity.references.like(target.crop.image[None], avatar.identity.lips.closed[None])
    assert np.shape(references) == (1, 4, 16, 20, 20)
    assert sorted(avatar.latents) == list(range(IDLE + NOD))
    avatar.close()


def test_what_was_prepared_is_what_the_networks_give(avatar, networks):
    for tick in (0, 4):
        target = avatar.target(tick)
        assert np.allclose(networks.encode(target.crop.image[None])[0], avatar.latents[target.index], atol=1e-3)


def test_each_clips_mouth_is_drawn_in_its_own_light(avatar):
    for tick in (0, 15):
        if tick:
            avatar.play("nod")
            avatar.target(10)
        target = avatar.target(tick)
        known = avatar.identity.references
        either = (known.lips.min(0) + known.lips.max(0)) / 2  # a mouth as far from the one clip's as from the other's
        references = known.like(target.crop.image[None], either[None])[0]
        light = avatar.latents[target.index].astype(np.float32)[:3].mean()
        assert [abs(reference[:3].mean() - light) < 0.02 for reference in references] == [True] * 4


def another_bundle(folder: Path) -> Bundle:
    """A bundle that is another one by its lips encoder's file alone."""
    bundle = tiny_bundle(folder)
    path = bundle.graph_path("lips_encoder")
    model = onnx.load(path)
    model.doc_string = "another"
    onnx.save(model, path)
    write_manifest(folder, {name: field for name, field in bundle.manifest.items() if name not in ("schema", "files")})
    return Bundle.open(folder)


def test_prepared_for_another_bundle_it_opens_with_a_notice(folder, avatar, tmp_path, caplog):
    anew = opened(folder, Networks(another_bundle(tmp_path / "other"), threads=1))
    assert "was prepared for another bundle" in caplog.text
    assert 0 < len(anew.latents) <= 4, "those it refers to, not the prepared ones"
    assert np.allclose(anew.identity.lips.closed, avatar.identity.lips.closed, atol=1e-5)
    assert number_of(anew.target(3).frame.image) == 3
    anew.close()


def test_a_plain_video_is_prepared_for_this_run_and_leaves_nothing(networks, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    avatar = opened(write_faces(tmp_path / "face.mp4", IDLE, Fraction(30000, 1001)), networks)
    assert "its first 60 s are prepared for this run only" in caplog.text
    assert not list((tmp_path / "temporary").iterdir()), "a face would stay there after a SIGKILL"
    assert (avatar.frame_rate, avatar.clips) == (Fraction(30000, 1001), ("idle",))
    assert [number_of(avatar.target(tick).frame.image) for tick in range(30)] == [there_and_back(tick) for tick in range(30)]
    assert avatar.target(30_000).frame.pts_ns == 1001 * 10**9
    avatar.close()
    assert not list((tmp_path / "temporary").iterdir())


def test_of_a_long_video_that_was_not_prepared_the_beginning_is_looped(networks, tmp_path, monkeypatch):
    monkeypatch.setattr(looped, "LONGEST_S", 1)
    avatar = opened(write_faces(tmp_path / "face.mp4", 40), networks)
    assert [number_of(avatar.target(tick).frame.image) for tick in (0, 23, 24, 25)] == [0, 11, 0, 11]
    avatar.close()


def test_an_odd_size_fades_too(bundle, networks, tmp_path):
    idle = write_faces(tmp_path / "idle.mp4", 8, image=face()[:239, :319])
    nod = write_faces(tmp_path / "nod.mp4", 8, image=face()[:239, :319] // 2)
    prepare.prepare(idle, {"nod": nod}, tmp_path / "avatar", "Ada", bundle.folder, threads=1)
    avatar = opened(tmp_path / "avatar", networks)
    avatar.play("nod")
    level = [float(avatar.target(tick).frame.image.mean()) for tick in range(20)]
    assert (avatar.width, avatar.height) == (319, 239)
    assert min(level) < 0.6 * level[0]  # fading in and out takes longer than the clip: its last picture stays as long
    assert level[-1] == pytest.approx(level[0], rel=0.01)
    avatar.close()


def test_a_folder_of_pictures_and_a_single_picture(networks, tmp_path):
    for number, picture in enumerate(numbered(3)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture[:, :, ::-1])
    avatar = opened(tmp_path, networks)
    assert [number_of(avatar.target(tick).frame.image) for tick in range(6)] == [0, 1, 2, 1, 0, 1]
    avatar.close()
    avatar = opened(tmp_path / "1.png", networks)
    assert [number_of(avatar.target(tick).frame.image) for tick in range(3)] == [1, 1, 1]
    avatar.close()


def test_a_video_without_a_face_is_shown_as_it_is_and_that_is_said(networks, tmp_path, caplog):
    avatar = opened(write_faces(tmp_path / "blank.mp4", 5, image=np.full((HEIGHT, WIDTH, 3), 90, np.uint8)), networks)
    assert avatar.identity is None
    assert avatar.target(2).crop is None
    assert avatar.problem == NO_FACE and NO_FACE in caplog.text
    avatar.close()


def test_what_does_not_fit_into_memory_loops_the_same(networks, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_ahead, "KEPT_BYTES", 0)
    monkeypatch.setattr(decode_ahead, "FEWEST", 3)
    pictures = [picture for _ in range(12) for picture in numbered(12)]
    frames = (Frame(picture, 0) for picture in pictures)
    write_loop_video(tmp_path / "long.mp4", frames, WIDTH, HEIGHT, Fraction(25), "video")
    avatar = opened(tmp_path / "long.mp4", networks)
    for tick in [*range(300), 1000, 5000, 5001]:
        assert number_of(avatar.target(tick).frame.image) == there_and_back(tick, len(pictures)) % 12
        assert sum(map(len, avatar._pictures._decoded.values())) <= 5 * 12
    assert avatar.counters.repeated == 0
    avatar.close()


def test_late_pictures_are_replaced_by_the_last_one_and_counted(networks, tmp_path, monkeypatch):
    write_loop_video(tmp_path / "a.mp4", (Frame(picture, 0) for picture in numbered(40)), WIDTH, HEIGHT, Fraction(25), "video")
    release, read = threading.Event(), LoopVideo.group
    avatar = LoopedAvatar.open(tmp_path / "a.mp4", networks, HaarDetector())
    monkeypatch.setattr(LoopVideo, "group", lambda self, number: release.wait(10) and read(self, number))
    assert [number_of(avatar.target(tick).frame.image) for tick in (10, 11)] == [10, 11]
    late = [avatar.target(tick) for tick in (12, 13)]
    assert [number_of(target.frame.image) for target in late] == [11, 11]
    assert [target.frame.pts_ns for target in late] == [12 * 40_000_000, 13 * 40_000_000]
    assert avatar.counters.repeated == 2
    release.set()
    avatar._wait_ns = PATIENCE_NS
    assert number_of(avatar.target(14).frame.image) == 14 % 12
    avatar.close()


def test_a_disk_that_fails_and_comes_back(networks, tmp_path, monkeypatch):
    write_loop_video(tmp_path / "a.mp4", (Frame(picture, 0) for picture in numbered(40)), WIDTH, HEIGHT, Fraction(25), "video")
    avatar = LoopedAvatar.open(tmp_path / "a.mp4", networks, HaarDetector())
    with monkeypatch.context() as patch:
        patch.setattr(LoopVideo, "group", fails)
        shown = [avatar.target(tick) for tick in range(10, 20)]
        assert number_of(shown[-1].frame.image) == 11
        assert avatar.problem == "the avatar's pictures cannot be read: the disk has gone"
    avatar._wait_ns = PATIENCE_NS
    assert number_of(avatar.target(20).frame.image) == 20 % 12
    assert avatar.problem is None
    avatar.close()


def fails(*_: object) -> list[Frame]:
    raise OSError("the disk has gone")


def test_closing_ends_the_thread_and_closes_the_files(folder, networks):
    opened(folder, networks).close()  # what is loaded once
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        avatar = opened(folder, networks)
        avatar.target(0)
        avatar.close()
        avatar.close()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files
