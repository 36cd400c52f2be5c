"""The training data is what it was cut from, and the stages follow one another on it."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from safetensors.torch import load_file  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.autoencoder import Autoencoder  # noqa: E402
from flashlips_edge.models.editor import EditorUNet  # noqa: E402
from flashlips_edge.models.lips import LipsEncoder  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.talking.references import SAME_POSE  # noqa: E402
from flashlips_edge.training import editor, latents, lips_encoder, lips_teacher, pairs, refinement, sharpening  # noqa: E402
from flashlips_edge.training.augment import another_person, turned  # noqa: E402
from flashlips_edge.training.checkpoint import load_weights, save_weights  # noqa: E402
from flashlips_edge.training.clips import load_clips  # noqa: E402
from flashlips_edge.training.pairs import Person, draw, load_people, person_weights  # noqa: E402
from flashlips_edge.training.synthetic_clips import random_pose  # noqa: E402
from flashlips_edge.training.synthetic_head import Identity, Lips, render  # noqa: E402
from flashlips_edge.training.views import look  # noqa: E402

SYNTHETIC = (3, 4)  # seeds; the sum of the bytes of "synthetic.3" is no multiple of ten: it is learned from


def write_person(seed: int, folder: Path) -> None:
    """A clip of a synthetic person, two poses with six lips each, no two alike."""
    generator, identity = np.random.default_rng(seed), Identity.from_seed(seed)
    poses = np.repeat([random_pose(generator) for _ in range(2)], 6)
    lips = [Lips(jaw=0.07 * i, width=generator.uniform(-0.6, 0.8)) for i in range(len(poses))]
    folder.mkdir(parents=True)
    np.save(folder / "crops.npy", np.stack([render(identity, pose, mouth, (160, 160)) for pose, mouth in zip(poses, lips)]))
    np.save(folder / "params.npy", np.float32([mouth.vector() for mouth in lips]))
    np.save(folder / "pts_ns.npy", np.arange(len(lips)) * 40_000_000)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``clips``, ``weights`` with an untrained autoencoder, and ``latents`` of two synthetic people."""
    work = tmp_path_factory.mktemp("work")
    for seed in SYNTHETIC:
        write_person(seed, work / "clips" / f"synthetic.{seed}")
    torch.manual_seed(0)
    path = work / "weights" / "autoencoder.safetensors"
    save_weights(path, Autoencoder(**load_preset("nano")["autoencoder"]))
    latents.main(work / "clips", path, work / "latents", "nano")
    return work


def test_another_person_is_another_picture_moved_alike_in_all_frames() -> None:
    random = np.random.default_rng(0)
    crop = random.integers(0, 255, (160, 160, 3)).astype(np.uint8)
    clip = np.stack([crop, crop])
    person, still = another_person(clip, np.random.default_rng(1), moving_share=0)
    assert still is None
    assert person.shape == clip.shape and person.dtype == np.uint8
    assert np.array_equal(person[0], person[1])
    assert np.abs(person[0].astype(int) - crop).mean() > 5
    assert np.array_equal(person, another_person(clip, np.random.default_rng(1), moving_share=0)[0])


def test_another_person_s_head_may_move_between_a_few_poses() -> None:
    crop = np.random.default_rng(0).integers(0, 255, (160, 160, 3)).astype(np.uint8)
    frames, still = another_person(np.stack([crop] * 40), np.random.default_rng(1), moving_share=1)
    assert still is not None and len({frame.tobytes() for frame in still}) == 1
    assert len({frame.tobytes() for frame in frames}) == 3, "each pose has frames enough to find another mouth in it"


@pytest.mark.parametrize("yaw", [-0.4, 0.4])
def test_a_turned_face_shows_more_of_the_cheek_that_comes_forward(yaw: float) -> None:
    y, x = np.mgrid[0:160, 0:160].astype(np.float32) / 160 - 0.5
    grid_x, _ = turned(x, y, yaw, 0.0, 160)
    step = np.diff(grid_x[95])  # source pixels passed by one pixel of the turned face: more where it is foreshortened
    near, far = (step[45:60].mean(), step[100:115].mean()) if yaw > 0 else (step[100:115].mean(), step[45:60].mean())
    assert near < 1 < far
    assert np.isfinite(grid_x).all() and (step > 0).all(), "no part of the face folds over another"
    level = turned(x, y, 0.0, 0.0, 160)
    assert np.abs(level[0] - (x * 160 + 79.5)).max() < 1e-3 and np.abs(level[1] - (y * 160 + 79.5)).max() < 1e-3


def test_the_cached_pictures_are_the_clips(cache: Path) -> None:
    (clip, *_), (person, *_) = load_clips(cache / "clips"), load_people(cache / "latents")[0]
    assert person.folder.name == f"{clip.name}.0"
    assert np.array_equal(person["lower"], clip.crops[:, 56:])
    assert person["latents"].shape == (len(clip.crops), 16, 20, 20)
    assert clip.params is not None and np.array_equal(person.parameters_of(5), clip.params[5])
    model = Autoencoder(**load_preset("nano")["autoencoder"])
    load_weights(cache / "weights" / "autoencoder.safetensors", model)
    picture = torch.from_numpy(latents.masked(clip.crops[:1])).permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(model.encode(picture), torch.from_numpy(person["masked"][:1].astype(np.float32)), atol=0.02)
    assert (picture[0, :, 84:, 30:130] * 255 == 128).all() and not (picture[0, :, :84] * 255 == 128).all()


def test_a_batch_is_what_it_says(cache: Path) -> None:
    people, _ = load_people(cache / "latents")
    batch = draw(people, person_weights(people), np.random.default_rng(0), 24, 0.5, references=2)
    stored = {p["latents"][t].tobytes(): (p, t) for p in people for t in range(len(p))}
    for i in range(24):
        person, t = stored[batch.target_latents[i].numpy().tobytes()]
        assert np.array_equal(batch.lower_pictures[i], person["lower"][t]) and np.array_equal(batch.face_pictures[i], person["face"][t])
        assert np.array_equal(batch.parameters[i], person.parameters_of(t))
        for reference in batch.reference_latents[i].split(16):
            owner, r = stored[reference.numpy().tobytes()]
            assert owner is person and abs(r - t) >= 3, "another frame of the same person"
        if batch.hidden[i]:
            assert np.array_equal(batch.latents[i], person["masked"][t])
        else:
            owner, s = stored[batch.latents[i].numpy().tobytes()]
            assert owner is person and np.array_equal(batch.other_pictures[i], person["lower"][s])
    assert 4 < batch.hidden.sum() < 20
    assert batch.lower.shape == (24, 3, 104, 160) and 0.2 < float(batch.lower.max()) <= 1
    assert batch.lips[:, :, 92 - 56 : 152 - 56, 45:115].eq(1).all() and batch.lips.sum() == 24 * 60 * 70


def test_the_lips_of_a_turned_head_are_read_before_the_turn(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clip, *_) = load_clips(cache / "clips")
    folder = tmp_path / "clips" / "lobby.ada"
    folder.mkdir(parents=True)
    for name, array in {"crops": clip.crops, "pts_ns": clip.pts_ns}.items():
        np.save(folder / f"{name}.npy", array)
    for share in (0.0, 1.0):
        monkeypatch.setattr(another_person, "__defaults__", (share,))
        latents.main(tmp_path / "clips", cache / "weights" / "autoencoder.safetensors", tmp_path / f"latents{share}", "nano")
    (_, *stills), (own, *turned) = (sorted(load_people(tmp_path / f"latents{s}")[1], key=lambda p: p.folder.name) for s in (0.0, 1.0))
    assert len(turned) == len(stills) == 3
    for still, person in zip(stills, turned):  # the same person, whose head now moves
        for t in range(len(person)):
            lower, face = person.level(t)
            assert np.array_equal(lower, still["lower"][t]) and np.array_equal(face, still["face"][t])
            assert not np.array_equal(person["face"][t], face)
    assert not draw(turned, np.full(3, 1 / 3), np.random.default_rng(0), 8, 0.5).unturned.any()
    for people in ([own], stills):
        assert draw(people, np.full(len(people), 1 / len(people)), np.random.default_rng(0), 8, 0.5).unturned.all()


def test_clips_whose_names_have_the_same_letters_become_different_people(cache: Path, tmp_path: Path) -> None:
    (clip, *_) = load_clips(cache / "clips")
    for name in ("lobby.ab", "lobby.ba"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        np.save(tmp_path / "clips" / name / "crops.npy", clip.crops[:8])
        np.save(tmp_path / "clips" / name / "pts_ns.npy", clip.pts_ns[:8])
    latents.main(tmp_path / "clips", cache / "weights" / "autoencoder.safetensors", tmp_path / "latents", "nano")
    own, other = (np.load(tmp_path / "latents" / f"lobby.{name}.1" / "lower.npy") for name in ("ab", "ba"))
    assert not np.array_equal(own, other)
    assert np.array_equal(*(np.load(tmp_path / "latents" / f"lobby.{name}.0" / "lower.npy") for name in ("ab", "ba")))


def test_lips_of_a_parsing_network_are_used_where_there_are_some(cache: Path, tmp_path: Path) -> None:
    (clip, *_) = load_clips(cache / "clips")
    parsed = np.zeros(clip.crops.shape[:3], np.uint8)
    parsed[:, 100:110, 60:100] = 1
    folder = tmp_path / "clips" / clip.name
    folder.mkdir(parents=True)
    for name, array in {"lips": parsed, "crops": clip.crops, "pts_ns": clip.pts_ns}.items():
        np.save(folder / f"{name}.npy", array)
    latents.main(tmp_path / "clips", cache / "weights" / "autoencoder.safetensors", tmp_path / "latents", "nano")
    people, _ = load_people(tmp_path / "latents")
    mask = draw(people, person_weights(people), np.random.default_rng(0), 1, 1.0).lips
    assert mask.sum() == 400 and mask[0, 0, 100 - 56 : 110 - 56, 60:100].eq(1).all()


def test_pairs_have_the_same_head_pose_and_another_mouth(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    poses = np.repeat(random.uniform(0, 255, (4, 200)), 5, axis=0).astype(np.float32)  # four poses, five mouths in each
    lower = np.zeros((20, 104, 160, 3), np.uint8)
    for i in range(20):
        lower[i, 100 - 56 : 148 - 56, 50:110] = 40 * (i % 5)
    for name, array in {"pose": poses, "lower": lower, "latents": np.zeros((20, 16, 20, 20), np.float16)}.items():
        np.save(tmp_path / f"{name}.npy", array)
    person = Person(tmp_path)
    for i in range(20):
        others = person.same_pose(i)
        assert {int(j) // 5 for j in others} == {i // 5}
        assert all(abs(int(j) % 5 - i % 5) >= 2 for j in others), "the mouths that differ most"


def test_a_person_of_one_frame_is_drawn_with_that_frame_for_everything(cache: Path, tmp_path: Path) -> None:
    (person, *_), _ = load_people(cache / "latents")
    for path in person.folder.glob("*.npy"):
        np.save(tmp_path / path.name, np.load(path)[:1])
    photo = Person(tmp_path)
    batch = draw([photo], np.ones(1), np.random.default_rng(0), 24, 0.5)
    assert 0 < batch.hidden.sum() < 24
    for i in range(24):
        assert np.array_equal(batch.latents[i], photo["masked" if batch.hidden[i] else "latents"][0])
        assert np.array_equal(batch.reference_latents[i], np.concatenate([photo["latents"][0]] * 4))


@pytest.mark.parametrize(("frames", "least"), [(2, 1), (3, 1), (7, 1), (8, 2), (40, 3)])
def test_a_frame_is_never_its_own_reference(frames: int, least: int, tmp_path: Path) -> None:
    np.save(tmp_path / "latents.npy", np.zeros((frames, 1, 2, 2), np.float16))
    person = Person(tmp_path)
    assert min(np.abs(person.apart(t) - t).min() for t in range(frames)) == least


def test_there_may_be_more_people_than_files_may_be_open(tmp_path: Path) -> None:
    for i in range(100):
        folder = tmp_path / f"synthetic.{i}.0"
        folder.mkdir()
        np.save(folder / "latents.npy", np.full((1, 16, 2, 2), i, np.float16))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 50, before[1]))
    try:
        people, held_out = load_people(tmp_path)
        assert len({float(p["latents"][0].max()) for p in (*people, *held_out)}) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_the_teacher_sees_is_the_crop_and_its_mouth() -> None:
    across = torch.linspace(0, 1, 160).expand(1, 3, 160, 160)
    face = torch.nn.functional.interpolate(across, (96, 96), mode="area")
    view, mouth = look(across[:, :, 56:], face, 0.0)
    assert torch.allclose(view, face, atol=1e-5)
    assert mouth[0, 0, 0, 0].item() == pytest.approx(0.25, abs=0.01) and mouth[0, 0, 0, -1].item() == pytest.approx(0.75, abs=0.01)
    torch.manual_seed(0)
    first, second = (look(across[:, :, 56:], face)[0] for _ in range(2))
    assert (first - second).abs().mean() > 0.01


def test_the_stages_follow_one_another(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "CHECKED", 4)
    folder, weights = cache / "latents", cache / "weights"
    lips_teacher.main(folder, weights, "nano", steps=2)
    editor.main(folder, weights, "nano", steps=2)
    refinement.main(folder, weights, "nano", steps=2)
    sharpening.main(folder, weights, "nano", steps=2)
    lips_encoder.main(folder, weights, "nano", steps=2)
    preset = load_preset("nano")
    for name, network in {"editor": EditorUNet(**preset["editor"]), "lips_encoder": LipsEncoder(**preset["lips"])}.items():
        load_weights(weights / f"{name}.safetensors", network)
    started, refined = (load_file(weights / f"{name}.safetensors") for name in ("editor_task", "editor_refinement"))
    moved = {key for key in started if not torch.equal(started[key], refined[key])}
    assert "editor.residual.weight" in moved and all(key.startswith("editor.") for key in moved), "the editor is refined and nothing else"
    sharp = load_file(weights / "editor_sharp.safetensors")
    moved = {key for key in refined if not torch.equal(refined[key], sharp[key])}
    assert "editor.residual.weight" in moved and all(key.startswith("editor.") for key in moved), "and sharpened, with a critic beside it"
    assert torch.equal(load_file(weights / "editor.safetensors")["residual.weight"], sharp["editor.residual.weight"])
    assert {len(v) for v in json.loads((weights / "lips.json").read_text()).values()} == {12}


def test_a_preset_that_follows_the_paper_is_not_sharpened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--preset paper: has no sharpening_rate"):
        sharpening.main(tmp_path, tmp_path, "paper", steps=2)


def test_both_directions_are_refined(cache: Path) -> None:
    preset = load_preset("nano")
    people, _ = load_people(cache / "latents")
    plain = editor.editor_loss(preset, cache / "weights", None, None, None)
    frozen, task = editor.EditorTask(preset), editor.EditorTask(preset)
    loss = refinement.RefinementLoss(plain, frozen)
    batch = draw(people, person_weights(people), np.random.default_rng(0), 4, 0.0)
    lips, other, altered = loss.alter(batch)
    assert (other - lips).abs().mean() > 0.01
    assert torch.equal(altered, batch.target * frozen.editor.shown), "a new editor changes nothing that it sees"
    terms = loss.refine(task, batch)
    assert {"latent", "lips", "symmetric", "obey"} <= terms.keys()
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in frozen.parameters())
    assert task.editor.residual.weight.grad is not None


def test_a_folder_without_clips_or_latents_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no prepared clips"):
        load_clips(tmp_path)
    with pytest.raises(UserError, match=r"no cached latents; run python -m flashlips_edge\.training\.latents"):
        load_people(tmp_path)


def test_clips_of_another_size_are_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is 160 px, preset edge needs 256"):
        weights = tmp_path / "autoencoder.safetensors"
        save_weights(weights, Autoencoder(**load_preset("edge")["autoencoder"]))
        latents.main(cache / "clips", weights, tmp_path / "latents", "edge")


def test_latents_of_two_autoencoders_are_not_mixed(cache: Path, tmp_path: Path) -> None:
    weights, out = tmp_path / "autoencoder.safetensors", tmp_path / "latents"
    model = Autoencoder(**load_preset("nano")["autoencoder"])
    for _ in range(2):
        save_weights(weights, model)
        latents.main(cache / "clips", weights, out)  # a second time: nothing is left to do
    before = {path: path.read_bytes() for path in out.rglob("*.npy")}
    torch.nn.init.normal_(next(model.parameters()))
    save_weights(weights, model)
    with pytest.raises(UserError, match=r"--out .*latents: holds latents of another autoencoder"):
        latents.main(cache / "clips", weights, out)
    assert {path: path.read_bytes() for path in out.rglob("*.npy")} == before


def test_references_may_all_show_the_same_mouth_as_those_of_a_face_that_rests(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "NEAR_SHARE", 0.0)
    monkeypatch.setattr(pairs, "RESTING_SHARE", 1.0)
    (person, *_), _ = load_people(cache / "latents")
    generator, once = np.random.default_rng(0), 0
    for t in np.tile(np.arange(len(person)), 20):
        chosen = person.references(int(t), generator, 4)
        assert len(chosen) == 4 and set(chosen) <= set(person.apart(int(t)))
        assert any(set(chosen) <= {r, *person.near(r)} for r in person.apart(int(t))), "one mouth and those like it"
        once += len(set(chosen)) == 1
    assert once > 3 * len(person), "in one case of four a photo"


def test_the_reference_that_is_most_like_the_wanted_frame_comes_first(cache: Path) -> None:
    (person, *_), _ = load_people(cache / "latents")
    generator = np.random.default_rng(0)
    for t in np.tile(np.arange(len(person)), 10):
        away = person.unlikeness(int(t))
        assert away[t] == away.min() <= SAME_POSE
        assert (np.diff(away[person.references(int(t), generator, 4)]) >= 0).all()
