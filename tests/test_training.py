"""Training goes on where it was killed, its losses are what they say, its data is what it was cut from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[build]'")

from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.training.augment import another_person  # noqa: E402
from flashlips_edge.training.clips import load_clips  # noqa: E402
from flashlips_edge.training.editor import EDGE_WEIGHT, LIPS_BOX, LIPS_WEIGHT, moving, pixel_losses  # noqa: E402
from flashlips_edge.training.latents import LOWER  # noqa: E402
from flashlips_edge.training.loop import Schedule, train  # noqa: E402
from flashlips_edge.training.pairs import Person  # noqa: E402


def fit(folder: Path, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    """Train a line to a sine; with ``stop_after`` the run is killed after that many steps."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))
    done = 0

    def loss(network: nn.Module, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        nonlocal done
        if stop_after is not None and done == stop_after:
            raise KeyboardInterrupt
        done += 1
        x = torch.from_numpy(generator.uniform(-3, 3, (32, 1)).astype(np.float32))
        return {"fit": (network(x).float() - x.sin() + 0.01 * torch.randn_like(x)).square().mean()}

    train("line", module, loss, Schedule(steps=60, rate=1e-2, warm_up=5, save_every_s=0.0), folder)
    return load_file(folder / "line.safetensors")


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", stop_after=25)
    resumed = fit(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_loss_falls_and_its_curve_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)

    def loss(network: nn.Module, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        x = torch.from_numpy(generator.uniform(-1, 1, (64, 1)).astype(np.float32))
        return {"fit": (network(x).float() - 2 * x).square().mean()}

    train("line", nn.Linear(1, 1), loss, Schedule(steps=300, rate=3e-2, warm_up=5), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "fit" in row] == [100, 200, 300]
    assert rows[2]["fit"] < 0.1 * rows[0]["fit"]


def test_pixel_losses_by_hand() -> None:
    truth = torch.zeros(1, 3, 160 - LOWER, 160)
    image, other = truth.clone(), truth.clone()
    top, bottom, left, right = LIPS_BOX
    row, column = top - LOWER + 20, left + 30
    image[0, :, row, column] = 0.3  # one wrong pixel among the lips
    losses = pixel_losses(image, truth, other)
    pixels = (bottom - top) * (right - left)
    assert float(losses["pixel"]) == pytest.approx(0.3 / (160 * (160 - LOWER)), rel=1e-5)
    assert float(losses["lips"]) == pytest.approx(LIPS_WEIGHT * 0.4 * 0.3 / pixels, rel=1e-5)
    steps = 2 * 0.3 / ((bottom - top - 1) * (right - left)) + 2 * 0.3 / ((bottom - top) * (right - left - 1))
    assert float(losses["edge"]) == pytest.approx(EDGE_WEIGHT * steps, rel=1e-5)
    other[0, :, row - 5 : row + 6, column - 5 : column + 6] = 0.5  # where the other mouth differs, errors cost more
    assert float(moving(truth, other)[0, 0, row, column]) == pytest.approx(0.4 + 6 * 0.5)


def test_another_person_is_another_picture_moved_alike_in_all_frames() -> None:
    random = np.random.default_rng(0)
    crop = random.integers(0, 255, (160, 160, 3)).astype(np.uint8)
    clip = np.stack([crop, crop])
    person = another_person(clip, np.random.default_rng(1))
    assert person.shape == clip.shape and person.dtype == np.uint8
    assert np.array_equal(person[0], person[1])
    assert np.abs(person[0].astype(int) - crop).mean() > 5
    assert np.array_equal(person, another_person(clip, np.random.default_rng(1)))


def test_a_folder_without_clips_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no prepared clips"):
        load_clips(tmp_path)


def test_pairs_have_the_same_head_pose_and_another_mouth(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    poses = np.repeat(random.uniform(0, 255, (4, 200)), 5, axis=0).astype(np.float32)  # four poses, five mouths in each
    lower = np.zeros((20, 160 - LOWER, 160, 3), np.uint8)
    for i in range(20):
        lower[i, 100 - LOWER : 148 - LOWER, 50:110] = 40 * (i % 5)
    np.save(tmp_path / "pose.npy", poses)
    np.save(tmp_path / "lower.npy", lower)
    for i, others in enumerate(Person(tmp_path).same_pose):
        assert {int(j) // 5 for j in others} == {i // 5}
        assert all(abs(int(j) % 5 - i % 5) >= 2 for j in others), "the mouths that differ most"
