"""The feature network knows people again from one clip to another, and learns that from cached latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from safetensors.torch import save_file  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.media.video_file import VideoFile  # noqa: E402
from flashlips_edge.models.features import SHIPPED, FeatureNetwork, likeness, load_features  # noqa: E402
from flashlips_edge.training import features  # noqa: E402
from flashlips_edge.training.pairs import Person, picture  # noqa: E402
from flashlips_edge.training.prepare import pieces  # noqa: E402


def faces_of(path: Path, count: int = 3) -> torch.Tensor:
    """Some faces [count, 3, 96, 96] of a video."""
    with VideoFile(path) as video:
        crops = next(iter(pieces(video, 160))).crops
    chosen = crops[np.linspace(0, len(crops) - 1, count).astype(int)]
    return picture(torch.from_numpy(np.stack([cv2.resize(c, (96, 96), interpolation=cv2.INTER_AREA) for c in chosen])))


def test_the_shipped_weights_are_small() -> None:
    assert SHIPPED.stat().st_size < 2_000_000
    assert sum(p.numel() for p in FeatureNetwork().parameters()) < 1_000_000


def test_people_are_known_again_in_another_clip(data_path: Callable[[str], Path]) -> None:
    """Two strangers and the man of the training clips, two clips of each that has two."""
    strangers, known = ("grid_unseen/s31_bgiq6p.mpg", "grid_unseen/s31_lrau5s.mpg"), ("grid_s1/bbaf4p.mpg", "grid_s1/srbu8p.mpg")
    names = [*strangers, *known, "video/latentsync_demo1.mp4"]
    who = np.repeat([0, 0, 1, 1, 2], 3)
    network = load_features()
    with torch.no_grad():
        vectors = torch.cat([network.embed(faces_of(data_path(f"test/{name}"))) for name in names]).numpy()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert features.verification_auc(vectors, who) > 0.95


def test_a_crop_has_its_picture_s_features() -> None:
    network = load_features()
    picture_ = torch.rand(1, 3, 128, 160)
    with torch.no_grad():
        whole, part = network.maps(picture_), network.maps(picture_[:, :, 32:96, 32:96])
    assert [m.shape[1:] for m in whole] == [(24, 64, 80), (48, 32, 40), (96, 16, 20), (128, 8, 10), (160, 4, 5)]
    assert torch.allclose(whole[1][:, :, 12:20, 12:20], part[1][:, :, 4:12, 4:12], atol=1e-4)


def test_likeness_is_one_with_itself() -> None:
    face = torch.rand(2, 3, 96, 96)
    assert likeness(load_features(), face, face) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert likeness(load_features(), face, 1 - face).lt(0.99).all()


def test_the_area_under_the_curve_by_hand() -> None:
    angles = np.deg2rad([0, 10, 90, 140])  # cosines of pairs of one: 10 and 50 degrees apart; of two: 90, 140, 80, 130
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert features.verification_auc(vectors, np.array([0, 0, 1, 1])) == 1.0
    assert features.verification_auc(vectors, np.array([0, 1, 0, 1])) == pytest.approx(2 / 8)


def test_two_people_are_learned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("synthetic.1.0", "synthetic.3.0"):
        folder = tmp_path / "latents" / name
        folder.mkdir(parents=True)
        colour = random.integers(60, 200, 3)
        np.save(folder / "face.npy", (colour + random.integers(-20, 20, (4, 96, 96, 3))).astype(np.uint8))
        np.save(folder / "lower.npy", (colour + random.integers(-20, 20, (4, 104, 160, 3))).astype(np.uint8))
        np.save(folder / "latents.npy", np.zeros((4, 16, 20, 20), np.float16))
    features.main(tmp_path / "latents", tmp_path / "out", steps=2)
    network = load_features(tmp_path / "out" / "features.safetensors")
    face = picture(torch.from_numpy(np.load(tmp_path / "latents" / "synthetic.1.0" / "face.npy")))
    assert network.embed(face).shape == (4, 64)


def test_weights_of_another_network_are_no_judge(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    save_file({"picture.1.weight": torch.zeros(48, 16, 3, 3)}, path)
    with pytest.raises(UserError, match=r"features\.safetensors: stages\.0\.halve\.weight is missing; give the weights"):
        load_features(path)
    path.write_bytes(b"these are no weights")
    with pytest.raises(UserError, match=r"features\.safetensors: no such safetensors file, or a damaged one"):
        load_features(path)


def test_clips_of_one_man_are_one_class(tmp_path: Path) -> None:
    names = ["grid_s1.a.0", "grid_s1.b.0", "grid_s1.a.1", "crema_d.c.0"]
    numbers = features.identities([Person(tmp_path / name) for name in names])
    assert numbers[0] == numbers[1] and len(set(numbers)) == 3
