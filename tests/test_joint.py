"""Editor and lips encoder learn together: the vector keeps its meaning, and what was grown keeps its lips encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from safetensors.torch import load_file  # noqa: E402
from test_training import write_person  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.lips import LipsEncoder  # noqa: E402
from flashlips_edge.models.networks import networks  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training import editor, joint, latents, lips_encoder  # noqa: E402
from flashlips_edge.training.checkpoint import load_constants, load_weights, save_weights  # noqa: E402
from flashlips_edge.training.editor import Backbone, editor_loss  # noqa: E402
from flashlips_edge.training.grow import start_file  # noqa: E402
from flashlips_edge.training.pace import Pace, at  # noqa: E402
from flashlips_edge.training.pairs import Person, draw, load_people, person_weights  # noqa: E402

PRESET = load_preset("nano")
KNOWN = {"opening": [0.5] * 12, "closed": [0.0] * 12}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """``latents`` of two synthetic people and ``weights``: networks as they come, an editor that does something."""
    for seed in (3, 4):
        write_person(seed, tmp_path / "clips" / f"synthetic.{seed}")
    torch.manual_seed(0)
    for name, model in networks(PRESET).items():
        if isinstance(model, joint.EditorUNet):
            torch.nn.init.normal_(model.residual.weight, std=0.05)
        save_weights(tmp_path / "weights" / f"{name}.safetensors", model)
    latents.main(tmp_path / "clips", tmp_path / "weights" / "autoencoder.safetensors", tmp_path / "latents", "nano")
    return tmp_path


def parts(work: Path) -> tuple[joint.JointTask, joint.JointLoss, Any]:
    """The task with the networks of ``weights``, its loss, and a batch."""
    task, before = joint.JointTask(PRESET), LipsEncoder(**PRESET["lips"])
    load_weights(work / "weights" / "editor.safetensors", task.editor)
    for encoder in (task.lips, before):
        load_weights(work / "weights" / "lips_encoder.safetensors", encoder)
    people, _ = load_people(work / "latents")
    loss = joint.JointLoss(editor_loss(PRESET, work / "weights", None, None, None).reconstruction, before)
    return task, loss, draw(people, person_weights(people), np.random.default_rng(0), 4, 0.5)


def test_what_the_picture_needs_reaches_the_lips_encoder(work: Path) -> None:
    task, loss, batch = parts(work)
    terms = loss(task, batch)
    assert {"pixel", "lips", "fool", "alike", "critic", "anchor", "turned"} <= set(terms)
    (pixels,) = torch.autograd.grad(terms["lips"], [task.lips.encoder.out.weight], retain_graph=True)
    assert pixels.abs().max() > 0
    assert not any(p.requires_grad for p in loss.before.parameters())
    (held,) = torch.autograd.grad(terms["anchor"], [task.lips.encoder.out.bias], retain_graph=True)
    assert held.abs().max() > 0


def test_the_anchor_is_nought_where_nothing_moved_and_grows_with_what_did(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, loss, batch = parts(work)
    monkeypatch.setattr(joint, "look", lambda lower, face, strength, size: (face, lower))  # undisguised
    assert loss(task, batch)["anchor"].item() < 1e-6
    with torch.no_grad():
        task.lips.encoder.out.bias += 0.5
    assert loss(task, batch)["anchor"].item() == pytest.approx(joint.ANCHOR_WEIGHT * 0.45, rel=0.01)  # smooth L1, beta 0.1


@pytest.mark.parametrize("grown", [False, True])
def test_the_stage_writes_what_the_next_ones_read(work: Path, grown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "CHECKED", 2)
    weights = work / "weights"
    before = load_file(weights / "lips_encoder.safetensors")
    if grown:
        (weights / "editor.safetensors").rename(start_file(weights, Backbone.UNET))
        (weights / "lips.json").write_text(json.dumps(KNOWN))
    with at(Pace(share=2 / 8000, batch=2)):
        joint.main(work / "latents", weights, "nano")
    after = load_file(weights / "lips_encoder.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before) is grown, "audio to lips of a grown preset knows these lips"
    load_weights(weights / "editor.safetensors", networks(PRESET)["editor"])
    constants = load_constants(weights)
    assert len(constants["opening"]) == 12 and (len(constants.get("spoken", [])) == 12) is not grown and (constants == KNOWN) is grown


def test_a_stage_that_goes_on_holds_on_to_the_lips_as_they_first_were(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "CHECKED", 2)
    weights, held_to = work / "weights", []
    first = load_file(weights / "lips_encoder.safetensors")

    class Noted(joint.JointLoss):
        def __init__(self, reconstruction: Any, before: torch.nn.Module) -> None:
            held_to.append(before.state_dict())
            super().__init__(reconstruction, before)

    monkeypatch.setattr(joint, "JointLoss", Noted)
    for steps in (2, 4):
        joint.main(work / "latents", weights, "nano", steps=steps, rate=1e-2)
    assert not all(torch.equal(first[name], value) for name, value in load_file(weights / "lips_encoder.safetensors").items())
    assert all(torch.equal(first[name], value) for name, value in held_to[1].items())
    (weights / "editor_joint.state.safetensors").unlink()  # begun anew, from what there is now
    now = load_file(weights / "lips_encoder.safetensors")
    joint.main(work / "latents", weights, "nano", steps=1)
    assert all(torch.equal(now[name], value) for name, value in held_to[2].items())


def test_a_held_lips_encoder_is_asked_for_nothing_and_stays(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, loss, batch = parts(work)
    task.lips.requires_grad_(False)
    terms = loss(task, batch)
    assert {"pixel", "lips", "fool"} <= set(terms) and not {"anchor", "turned"} & set(terms)
    monkeypatch.setattr(editor, "CHECKED", 2)
    weights = work / "weights"
    (weights / "lips.json").write_text(json.dumps(KNOWN))
    before = {name: load_file(weights / f"{name}.safetensors") for name in ("editor", "lips_encoder")}
    with at(Pace(share=2 / 8000, batch=2)):
        joint.main(work / "latents", weights, "nano", hold_lips=True, rate=1e-3)
    after = {name: load_file(weights / f"{name}.safetensors") for name in before}
    same = {name: all(torch.equal(before[name][key], after[name][key]) for key in before[name]) for name in before}
    assert same == {"editor": False, "lips_encoder": True} and load_constants(weights) == KNOWN


def test_the_rate_that_is_asked_for_is_the_rate(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr(joint, "train", lambda *arguments, **_: rates.append(arguments[4].rate) or arguments[1])
    for asked in (None, 2e-4):
        joint.main(work / "latents", work / "weights", "nano", rate=asked)
    assert rates == [PRESET["training"]["joint_rate"], 2e-4]


class Brightness(torch.nn.Module):
    """Lips that all say how bright a face is."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        return face.mean((1, 2, 3))[:, None].expand(-1, 12)


def test_how_far_mouths_open_is_a_mean_over_sets_of_real_people_as_they_are(tmp_path: Path) -> None:
    ranges = {"few.one.0": 100, "many.one.0": 200, "many.two.0": 200, "many.three.0": 200, "many.one.1": 255, "synthetic.one.0": 255}
    for name, most in ranges.items():
        (tmp_path / name).mkdir()
        levels = np.r_[np.zeros(10), np.full(80, most // 2), np.full(10, most)].astype(np.uint8)
        np.save(tmp_path / name / "face.npy", np.tile(levels[:, None, None, None], (1, 4, 4, 3)))
    np.save(tmp_path / "synthetic.one.0" / "params.npy", np.zeros((100, 6), np.float32))
    people = [Person(tmp_path / name) for name in ranges]
    found = lips_encoder.spoken(Brightness(), people, np.ones(12))
    assert found == pytest.approx(np.full(12, (100 + 200) / 2 / 255), abs=1e-5)
    of_head = lips_encoder.spoken(Brightness(), people[-1:], np.ones(12))
    assert of_head == pytest.approx(np.ones(12), abs=1e-5), "where there is nobody else"


def test_without_a_head_whose_lips_are_known_nothing_is_trained_or_replaced(work: Path) -> None:
    for params in (work / "latents").glob("*/params.npy"):
        params.unlink()
    before = (work / "weights" / "editor.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"--latents .*latents: no person of the synthetic head"):
        joint.main(work / "latents", work / "weights", "nano")
    assert (work / "weights" / "editor.safetensors").read_bytes() == before


def test_a_preset_of_the_paper_has_no_such_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--preset paper: has no joint_rate"):
        joint.main(tmp_path, tmp_path, "paper")
