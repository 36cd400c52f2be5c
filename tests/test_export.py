"""A bundle holds the network that was asked for, means the same in ONNX Runtime as in torch, and is whole or not there."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install '.[build]'")

from flashlips_edge.bundle import GRAPHS, Bundle  # noqa: E402
from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models import presets  # noqa: E402
from flashlips_edge.models.networks import networks  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training import export as exporting  # noqa: E402
from flashlips_edge.training.checkpoint import save_weights  # noqa: E402
from flashlips_edge.training.editor import Backbone  # noqa: E402
from flashlips_edge.training.export import export, load_graphs  # noqa: E402

NANO = load_preset("nano")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Preset small, the only one there is."""
    preset = copy.deepcopy(NANO)
    preset["editor"] |= {"widths": [16, 32], "blocks": [1, 1]}
    preset["editor_transformer"] |= {"stem_width": 16, "width": 32, "layers": 1, "heads": 2}
    preset["audio_to_lips"] |= {"layers": 1, "steps": 2}
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "small.yaml").write_text(yaml.safe_dump(preset))
    monkeypatch.setattr(presets, "FOLDER", folder)
    return preset


@pytest.mark.parametrize("backbone", Backbone)
def test_an_untrained_bundle_is_exported_checked_and_opened(small: dict[str, Any], backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bundle = Bundle.open(export("small", None, out / "bundle", backbone=backbone))  # compares torch with ONNX Runtime, graph by graph
    assert not bundle.manifest["trained"]
    assert set(bundle.manifest["graphs"]) == set(GRAPHS)
    assert bundle.manifest["graphs"]["editor"]["inputs"]["lips"] == ["batch", 12]
    assert bundle.manifest["licence"] == "Apache-2.0"
    assert [p.name for p in out.iterdir()] == ["bundle"], "nothing is left beside the bundle"


def test_the_editor_of_the_bundle_is_the_one_that_was_trained(small: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    models = networks(small)
    for name, model in models.items():
        save_weights(tmp_path / f"{name}.safetensors", model)
    for backbone in Backbone:
        editor = load_graphs(small, tmp_path, backbone)["editor"]
        for name, value in models[backbone.value].state_dict().items():
            assert torch.equal(editor.state_dict()[name], value)


@pytest.mark.parametrize("name", ["nano", "edge"])
def test_the_weights_in_the_repository_are_those_of_their_preset(name: str, repo: Path) -> None:
    folder = repo / "weights" / name
    assert set(load_graphs(load_preset(name), folder)) == set(GRAPHS)
    assert f"preset {name}" in (folder / "MODEL_CARD.md").read_text()


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "latents").mkdir()
    with pytest.raises(UserError, match=r"--out .*: is there and is no bundle; name a new folder"):
        export("nano", None, tmp_path)
    with pytest.raises(UserError, match="--out is missing: an untrained bundle"):
        exporting.main()
    assert (tmp_path / "latents").is_dir()


def test_missing_weights_are_one_sentence_and_the_old_bundle_stays(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").write_text("x")
    (tmp_path / "bundle" / "manifest.json").touch()
    with pytest.raises(UserError, match="autoencoder.safetensors is missing; run make train"):
        export("nano", tmp_path, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "old").exists()


def test_speech_that_a_preset_does_not_hear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this preset hears log-mel"):
        load_graphs(NANO, None, wav2vec=tmp_path)
    with pytest.raises(UserError, match="--wav2vec is missing"):
        load_graphs({"wav2vec": {}}, tmp_path)
