"""SyncNet finds by how much sound and lips are apart, on faces and voices that it has never seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[build]'")

from safetensors.torch import save_file  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.media.audio_file import read_audio  # noqa: E402
from flashlips_edge.media.video_file import VideoFile  # noqa: E402
from flashlips_edge.models.syncnet import SyncNet, frames_at_25_hz, load_syncnet, mouths_of, sync_score  # noqa: E402
from flashlips_edge.speech.features import log_mel  # noqa: E402
from flashlips_edge.training import syncnet  # noqa: E402
from flashlips_edge.training.pieces import pieces  # noqa: E402
from flashlips_edge.training.syncnet import another_mouth, another_sound, contrast, moved  # noqa: E402

SETS = {  # clips that nothing was trained on
    "grid_s1": ("bbaf4p.mpg", "lriq6n.mpg"),
    "grid_unseen": ("sbia1a.mpg", "s31_lrau5s.mpg"),
    "video": ("latentsync_demo1.mp4",),
}
OFFSETS = (-8, -5, -2, 0, 1, 4, 8)
Talk = tuple[np.ndarray, np.ndarray]  # crops at 25 frames a second, and the sound


@pytest.fixture(scope="module")
def network() -> Iterator[SyncNet]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_syncnet()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def talks(data_path: Callable[[str], Path]) -> dict[str, list[Talk]]:
    found: dict[str, list[Talk]] = {}
    for name, files in SETS.items():
        for file in files:
            path = data_path(f"test/{name}") / file
            with VideoFile(path) as video:
                piece = next(pieces(video, 120))
            frames = frames_at_25_hz(piece.pts_ns - piece.pts_ns[0])
            sound = read_audio(path)[int(piece.pts_ns[0] * 16_000 // 1_000_000_000) :]
            found.setdefault(name, []).append((piece.crops[frames], sound))
    return found


def test_known_offsets_are_found_within_one_frame(network: SyncNet, talks: dict[str, list[Talk]]) -> None:
    for name, clips in talks.items():
        found = [sync_score(network, crops, log_mel(moved(sound, late))).offset - late for crops, sound in clips for late in OFFSETS]
        assert np.mean(np.abs(found) <= 1) >= 0.8, f"{name}: off by {found}"


def test_the_right_sound_fits_better_than_other_sounds(network: SyncNet, talks: dict[str, list[Talk]]) -> None:
    for clips in talks.values():
        for crops, sound in clips:
            own = sync_score(network, crops, log_mel(sound))
            backwards = sync_score(network, crops, log_mel(sound[::-1].copy()))
            frozen = sync_score(network, np.repeat(crops[:1], len(crops), 0), log_mel(sound))
            assert own.confidence > backwards.confidence
            assert own.confidence > frozen.confidence
            assert own.curve.argmax() == own.offset + 10


def test_a_long_clip_is_scored_in_parts_alike(network: SyncNet, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (40, 60, 60, 3)).astype(np.uint8)
    mel = log_mel(np.random.default_rng(1).normal(0, 0.1, 40 * 640).astype(np.float32))
    whole = sync_score(network, crops, mel)
    monkeypatch.setattr("flashlips_edge.models.syncnet.AT_ONCE", 7)
    assert np.allclose(sync_score(network, crops, mel).curve, whole.curve, atol=1e-5)


def test_too_little_to_compare_is_an_error(network: SyncNet) -> None:
    with pytest.raises(ValueError, match="share 14 steps of 40 ms; 15 are the least"):
        sync_score(network, np.zeros((30, 60, 60, 3), np.uint8), np.zeros((4 * 14, 80), np.float32))


def test_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--syncnet .*there is no such file; give the weights"):
        load_syncnet(tmp_path / "none.safetensors")


def test_weights_that_are_damaged_or_another_network_s_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"these are no weights")
    with pytest.raises(UserError, match=r"--syncnet .*weights\.safetensors: no such safetensors file, or a damaged one; give the weights"):
        load_syncnet(path)
    save_file(SyncNet(width=96).state_dict(), path)
    with pytest.raises(UserError, match=r"--syncnet .*weights\.safetensors: .* is \[.*\] and must be \[.*\]; give the weights"):
        load_syncnet(path)
    save_file({"stages.0.halve.weight": torch.zeros(24, 3, 3, 3)}, path)
    with pytest.raises(UserError, match=r"--syncnet .*weights\.safetensors: picture\.1\.weight is missing; give the weights"):
        load_syncnet(path)


@given(gaps=st.lists(st.integers(1_000_000, 130_000_000), min_size=1, max_size=60))
def test_frames_at_25_hz_are_the_nearest(gaps: list[int]) -> None:
    pts_ns = np.concatenate([[0], np.cumsum(gaps)])
    frames = frames_at_25_hz(pts_ns)
    assert len(frames) == pts_ns[-1] // 40_000_000 + 1
    for step, frame in enumerate(frames):
        assert abs(pts_ns[frame] - step * 40_000_000) == np.abs(pts_ns - step * 40_000_000).min()


def test_mouths_are_the_same_whatever_the_size_of_the_crop() -> None:
    y, x = np.mgrid[0:512, 0:512] / 512
    large = np.stack([255 * (0.5 + 0.4 * np.sin(4 * x) * np.cos(3 * y))] * 3, -1)[None].astype(np.uint8)
    small = large.reshape(1, 128, 4, 128, 4, 3).mean((2, 4)).astype(np.uint8)
    assert mouths_of(large).shape == (1, 48, 96) and mouths_of(large).dtype == np.uint8
    assert np.abs(mouths_of(large).astype(int) - mouths_of(small)).max() <= 3


@given(frames=st.integers(-30, 30))
def test_sound_moved_there_and_back_is_the_same_inside(frames: int) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 30_000).astype(np.float32)
    back = moved(moved(sound, frames), -frames)
    inside = slice(abs(frames) * 640, len(sound) - abs(frames) * 640)
    assert len(back) == len(sound) and np.array_equal(back[inside], sound[inside])


def test_the_loss_by_hand() -> None:
    """Two moments: cosine 0.8 and -0.8 to their own sounds, 0.6 to each other's."""

    class Known(torch.nn.Module):
        def forward(self, mouths: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.eye(2)[None], torch.tensor([[[0.8, 0.6], [0.6, -0.8]]])

    terms = contrast(Known(), (torch.zeros(1), torch.zeros(1)))
    each = (np.log1p(np.exp((0.6 - 0.8) / 0.07)) + np.log1p(np.exp((0.6 + 0.8) / 0.07))) / 2
    assert float(terms["hears"]) == pytest.approx(each / 2, rel=1e-4)
    assert float(terms["watches"]) == pytest.approx(each / 2, rel=1e-4)


def test_a_disguise_keeps_the_moment() -> None:
    """The picture and the sound change, their time does not: what moves, and what is loud, does so at the same steps."""
    crops = np.full((12, 160, 160, 3), 120, np.uint8)
    crops[6:, 105:130, 60:100] = 20  # the mouth opens at step 6
    sound = np.zeros(12 * 640, np.float32)
    sound[6 * 640 :] = 0.3 * np.sin(np.arange(6 * 640) * 0.4)
    for seed in range(20):
        mouth, mel = another_mouth(crops, np.random.default_rng(seed)), another_sound(sound, np.random.default_rng(seed))
        assert mouth.shape == (12, 48, 96) and 0 <= mouth.min() and mouth.max() <= 1 and mel.shape == (48, 80)
        assert np.abs(np.diff(mouth, axis=0)).mean((1, 2)).argmax() == 5
        assert 22 <= np.diff(np.sort(mel, 1)[:, -8:].mean(1)).argmax() <= 24  # a window of 25 ms reaches back
        assert np.array_equal(mouth, another_mouth(crops, np.random.default_rng(seed)))


def test_the_recipe_runs_and_its_weights_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.one", "a.two"):
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        generator = np.random.default_rng(len(name))
        np.save(folder / "crops.npy", generator.integers(0, 255, (40, 64, 64, 3)).astype(np.uint8))
        np.save(folder / "pts_ns.npy", np.arange(40) * 40_000_000)
        np.save(folder / "audio.npy", generator.normal(0, 0.1, 40 * 640).astype(np.float32))
    syncnet.main(tmp_path / "clips", tmp_path / "out", steps=2)
    assert sum(p.numel() for p in load_syncnet(tmp_path / "out" / "syncnet.safetensors").parameters()) < 2_000_000
    syncnet.main(tmp_path / "clips", tmp_path / "out", measure=True)
    assert "a_found 0." in capsys.readouterr().out
    np.save(tmp_path / "clips" / "a.one" / "pts_ns.npy", np.arange(40))
    np.save(tmp_path / "clips" / "a.two" / "pts_ns.npy", np.arange(40))
    with pytest.raises(UserError, match="nobody speaks"):
        syncnet.main(tmp_path / "clips", tmp_path / "none", steps=2)
