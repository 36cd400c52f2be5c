"""Each stage trains as long and as fast as its preset says: nano and edge for a CPU, paper as FlashLips was trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from test_audio_to_lips import write_clip  # noqa: E402
from test_training import write_person  # noqa: E402

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.networks import networks  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training import __main__ as chain  # noqa: E402
from flashlips_edge.training import (  # noqa: E402
    audio_to_lips,
    autoencoder,
    distil_autoencoder,
    editor,
    grow,
    joint,
    latents,
    lips_encoder,
    lips_teacher,
    refinement,
    sharpening,
)
from flashlips_edge.training.checkpoint import save_weights  # noqa: E402
from flashlips_edge.training.editor import Backbone, EditorTask  # noqa: E402
from flashlips_edge.training.lips_teacher import TeacherTask  # noqa: E402
from flashlips_edge.training.loop import Schedule  # noqa: E402

NANO = load_preset("nano")
ON_A_CPU = {  # steps, rate and final rate
    autoencoder: (9000, 8e-4, 1e-5),
    lips_teacher: (2000, 6e-4, 1e-5),
    editor: (8000, 1e-3, 1e-5),
    refinement: (6000, 6e-4, 1e-5),
    sharpening: (2000, 4e-4, 1e-5),
    lips_encoder: (2500, 1.5e-3, 1e-5),
    joint: (8000, 4e-4, 1e-5),
    audio_to_lips: (6000, 1e-3, 1e-5),
}
AS_THE_PAPER = {
    editor: (1_000_000, 1e-4, 1e-8),
    refinement: (200_000, 1e-4, 1e-8),
    lips_encoder: (200_000, 1.5e-3, 1e-5),
    audio_to_lips: (200_000, 5e-5, 5e-5),
}


class Handed(Exception):  # noqa: N818 nothing went wrong
    """What a stage hands to ``train``, which does not begin."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule


def no_training(*arguments: object, **_: object) -> None:
    raise Handed(next(a for a in arguments if isinstance(a, Schedule)))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``clips``, ``latents``, and untrained ``weights`` of every stage, of preset nano."""
    folder = tmp_path_factory.mktemp("work")
    for seed in (3, 4):
        write_person(seed, folder / "clips" / f"synthetic.{seed}")
    write_clip(folder / "speech" / "people.a")
    weights = folder / "weights"
    for name, model in networks(NANO).items():
        save_weights(weights / f"{name}.safetensors", model)
    save_weights(weights / "teacher_task.safetensors", TeacherTask(NANO))
    for name in ("editor_task", "editor_refinement"):
        save_weights(weights / f"{name}.safetensors", EditorTask(NANO))
    (weights / "lips.json").write_text(json.dumps({"opening": [0.5] * 12, "closed": [0.0] * 12}))
    latents.main(folder / "clips", weights / "autoencoder.safetensors", folder / "latents", "nano")
    return folder


@pytest.fixture
def schedule_of(work: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Schedule]:
    """What a stage hands to ``train`` at a preset; the networks are nano's, which are quickly made."""

    def of(stage: ModuleType, preset: str, **options: int) -> Schedule:
        sizes = {**NANO, "training": load_preset(preset)["training"]}
        monkeypatch.setattr(stage, "load_preset", lambda _: sizes)
        monkeypatch.setattr(stage, "train", no_training)
        if stage is audio_to_lips:
            options["synthetic"] = 0
        data = {audio_to_lips: "speech", autoencoder: "clips"}.get(stage, "latents")
        with pytest.raises(Handed) as handed:
            stage.main(work / data, work / "weights", preset, **options)
        return handed.value.schedule

    return of


@pytest.mark.parametrize(("preset", "expected"), [("nano", ON_A_CPU), ("edge", ON_A_CPU), ("paper", AS_THE_PAPER)])
def test_each_stage_trains_as_its_preset_says(
    preset: str, expected: dict[ModuleType, tuple[int, float, float]], schedule_of: Callable[..., Schedule]
) -> None:
    found = {stage: schedule_of(stage, preset) for stage in expected}
    assert {stage: (s.steps, s.rate, s.final_rate) for stage, s in found.items()} == expected


def test_the_paper_s_rates_are_what_its_steps_go_by(schedule_of: Callable[..., Schedule]) -> None:
    edited, spoken = schedule_of(editor, "paper"), schedule_of(audio_to_lips, "paper")
    assert max(edited.at(step) for step in range(1000)) == pytest.approx(1e-4) and edited.at(999_999) == pytest.approx(1e-8, rel=0.01)
    assert [spoken.at(step) for step in (0, spoken.steps // 2, spoken.steps - 1)] == [5e-5] * 3
    assert load_preset("paper")["training"]["batch"] * 8 == 32, "on eight GPUs"


def test_steps_that_are_asked_for_are_done(schedule_of: Callable[..., Schedule]) -> None:
    for stage in ON_A_CPU:
        assert schedule_of(stage, "nano", steps=7).steps == 7


@pytest.mark.parametrize("stage", [refinement, sharpening, lips_encoder])
def test_a_stage_that_joint_has_trained_on_is_not_put_back(
    stage: ModuleType, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(work / "weights", weights)
    (weights / "editor_joint.state.safetensors").touch()
    before = {file.name: file.read_bytes() for file in weights.iterdir()}
    stage.main(work / "latents", weights, "nano", steps=1)
    assert {file.name: file.read_bytes() for file in weights.iterdir()} == before
    assert "editor_joint.state.safetensors" in capsys.readouterr().out, "what to delete to train it again"
    (weights / "editor_joint.state.safetensors").unlink()
    monkeypatch.setattr(stage, "train", no_training)
    with pytest.raises(Handed):
        stage.main(work / "latents", weights, "nano", steps=1)


def test_a_lips_encoder_follows_the_backbone_that_learned_first(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "nano"
    shutil.copytree(work / "weights", weights)
    for stage in (autoencoder, editor):
        monkeypatch.setattr(stage, "main", lambda *_, **__: pytest.fail("hours are spent"))
    refused = r"--backbone editor_transformer: .*editor_task\.safetensors is there; name another --work, or use --start"
    with pytest.raises(UserError, match=refused):
        chain.main(work=tmp_path, stages="autoencoder,editor", backbone=Backbone.TRANSFORMER)
    with pytest.raises(UserError, match=refused):
        lips_encoder.main(work / "latents", weights, "nano", backbone=Backbone.TRANSFORMER)
    begun: list[str] = []
    monkeypatch.setattr(grow, "main", lambda *_: begun.append("grow"))
    monkeypatch.setattr(joint, "main", lambda *_, **__: begun.append("joint"))
    chain.main(work=tmp_path, stages="grow,joint", backbone=Backbone.TRANSFORMER, start=weights)
    assert begun == ["grow", "joint"]
    (weights / "editor_transformer_joint.state.safetensors").touch()
    monkeypatch.setattr(lips_encoder, "train", lambda *_, **__: pytest.fail("it puts back what the transformer listens to"))
    lips_encoder.main(work / "latents", weights, "nano")


def test_the_paper_s_autoencoder_is_distilled_as_its_preset_says(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nano's autoencoder in the place of the SDXL VAE."""
    model = networks(NANO)["autoencoder"]
    model.latent_channels = NANO["autoencoder"]["latent_channels"]
    monkeypatch.setattr(distil_autoencoder, "load_sdxl", lambda _: model)
    monkeypatch.setattr(distil_autoencoder, "load_preset", lambda _: {**NANO, "training": load_preset("paper")["training"]})
    monkeypatch.setattr(distil_autoencoder, "train", no_training)
    with pytest.raises(Handed) as handed:
        distil_autoencoder.main(tmp_path, work / "clips", tmp_path)
    assert handed.value.schedule.steps == 50_000
