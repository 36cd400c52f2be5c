"""The networks keep their budgets, change what they may change, and mean the same in torch and in ONNX Runtime."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from flashlips_edge.bundle import GRAPHS, Bundle  # noqa: E402
from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.audio_to_lips import AudioToLips  # noqa: E402
from flashlips_edge.models.editor import EditorUNet  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training.export import examples, export, networks  # noqa: E402

NANO = load_preset("nano")


@pytest.fixture(scope="module")
def models():  # type: ignore[no-untyped-def]
    models = networks(NANO, None)
    models["latent_encoder"], models["latent_decoder"] = models["autoencoder"].encoder, models["autoencoder"].decoder
    return models


def gflop(model, inputs) -> float:  # type: ignore[no-untyped-def]
    with FlopCounterMode(display=False) as counter:
        model(*(value[:1] for value in inputs.values()))
    return counter.get_total_flops() / 1e9


def test_a_frame_costs_at_most_4_gflop_and_speech_at_most_a_fifth(models) -> None:  # type: ignore[no-untyped-def]
    inputs = examples(NANO)
    cost = {name: gflop(models[name], inputs[name]) for name in GRAPHS}
    assert cost["latent_encoder"] + cost["latent_decoder"] <= 2.7
    assert cost["latent_encoder"] + cost["editor"] + cost["latent_decoder"] <= 4.0
    assert (cost["speech_encoder"] + cost["audio_to_lips"]) / NANO["audio_to_lips"]["window"] <= 0.2


def test_a_new_editor_changes_nothing_and_never_the_rows_above_the_mouth(models) -> None:  # type: ignore[no-untyped-def]
    inputs = examples(NANO)["editor"]
    editor = copy.deepcopy(models["editor"])
    assert torch.equal(editor(**inputs), inputs["latent"])
    torch.nn.init.normal_(editor.residual.weight, std=0.1)
    top = NANO["editor"]["rows"][0]
    edited = editor(**inputs)
    assert torch.equal(edited[:, :, :top], inputs["latent"][:, :, :top])
    assert not torch.allclose(edited[:, :, top:], inputs["latent"][:, :, top:])
    other = editor(inputs["latent"], inputs["reference_latents"], inputs["lips"] + 1)
    assert not torch.allclose(edited, other), "the lips vector has no effect"


def test_one_reference_and_four_are_sizes_of_the_same_class() -> None:
    for count in (1, 2, 3):
        editor = EditorUNet(**{**NANO["editor"], "references": count})
        latent = torch.randn(1, 16, 20, 20)
        assert editor(latent, torch.randn(1, 16 * count, 20, 20), torch.randn(1, 12)).shape == latent.shape


def test_one_euler_step_is_guidance_by_hand() -> None:
    torch.manual_seed(0)
    flow = AudioToLips(**{**NANO["audio_to_lips"], "steps": 1, "guidance": 3.0}).eval()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    inputs = examples(NANO)["audio_to_lips"]
    references, previous = inputs["reference_lips"], inputs["previous_lips"]
    velocities = []
    for keep in (torch.ones(2), torch.zeros(2)):
        before, condition = flow.context(inputs["speech"], inputs["emotion"], references, previous, keep, torch.ones(2))
        velocities.append(flow.field(inputs["noise"], torch.zeros(2), before, condition))
    heard, unheard = velocities
    expected = flow.absolute(inputs["noise"] + unheard + 3.0 * (heard - unheard), references)
    assert torch.allclose(flow(**inputs), expected, atol=1e-5)


def test_lips_of_a_shifted_face_are_shifted_alike() -> None:
    torch.manual_seed(0)
    flow = AudioToLips(**NANO["audio_to_lips"]).eval()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    inputs = examples(NANO)["audio_to_lips"]
    shift = torch.randn(12)
    moved = {**inputs, "reference_lips": inputs["reference_lips"] + shift, "previous_lips": inputs["previous_lips"] + shift}
    assert torch.allclose(flow(**moved), flow(**inputs) + shift, atol=1e-4)


def test_an_untrained_bundle_is_exported_checked_and_opened(tmp_path: Path) -> None:
    folder = export("nano", None, tmp_path / "bundle")  # compares torch with ONNX Runtime, graph by graph
    bundle = Bundle.open(folder)
    assert not bundle.manifest["trained"]
    assert bundle.manifest["graphs"]["editor"]["inputs"]["lips"] == ["batch", 12]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"], "nothing is left beside the bundle"


def test_missing_weights_are_one_sentence_and_the_old_bundle_stays(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").write_text("x")
    with pytest.raises(UserError, match="autoencoder.safetensors is missing; run make train"):
        export("nano", tmp_path, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "old").exists()


def test_a_preset_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean nano"):
        load_preset("nan0")
