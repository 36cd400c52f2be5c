"""A larger editor that starts from a smaller one."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.networks import networks  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training import __main__ as chain  # noqa: E402
from flashlips_edge.training import grow, ship  # noqa: E402
from flashlips_edge.training.checkpoint import load_weights, read_tensors, save_weights  # noqa: E402
from flashlips_edge.training.editor import Backbone, EditorTask  # noqa: E402

BACKBONES = list(Backbone)


def trained(preset: dict[str, Any], backbone: Backbone) -> EditorTask:
    """A small editor with weights everywhere, as after training."""
    torch.manual_seed(0)
    task = EditorTask(preset, backbone).eval()
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return task


def inputs(preset: dict[str, Any]) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(1)
    h, w = preset["editor"]["size"]
    return tuple(torch.randn(shape, generator=generator) for shape in ((2, 16, h, w), (2, 64, h, w), (2, 12)))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_more_blocks_change_nothing_yet(backbone: Backbone) -> None:
    nano = load_preset("nano")
    more = copy.deepcopy(nano)
    more["editor"] |= {"blocks": [2, 3, 2], "heads": [0, 4, 8]}
    more["editor_transformer"]["layers"] += 2
    small, large = trained(nano, backbone).editor, EditorTask(more, backbone).eval().editor
    grow.grow_editor(small, large)
    with torch.no_grad():
        torch.testing.assert_close(large(*inputs(nano)), small(*inputs(nano)), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_positions_go_where_they_lie_in_the_crop(backbone: Backbone) -> None:
    nano, edge = load_preset("nano"), load_preset("edge")
    small, large = trained(nano, backbone).editor, EditorTask(edge, backbone).editor
    with torch.no_grad():  # a position that says how low in the crop it is
        rows = torch.arange(8, 20) + 0.5
        small.attention.position.copy_((rows / 20)[:, None].expand(12, 20))
    grow.grow_editor(small, large)
    found = large.attention.position[0, 0, :, 7].detach()  # of the rows 15 to 32: three around the hidden ones
    wanted = ((torch.arange(15, 32) + 0.5) / 32).clamp((8.5) / 20, 19.5 / 20)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["nano", "edge"])
def test_a_transformer_takes_the_ends_of_a_unet(name: str) -> None:
    small, large = trained(load_preset("nano"), Backbone.UNET).editor, EditorTask(load_preset(name), Backbone.TRANSFORMER).editor
    before = {key: value.clone() for key, value in large.state_dict().items()}
    grow.grow_editor(small, large)
    theirs, after = small.state_dict(), large.state_dict()
    taken = {key for key in after if not torch.equal(before[key], after[key])}
    assert {key.split(".")[0] for key in taken} == set(grow.ENDS)
    assert all(torch.equal(after[key], theirs[key]) for key in taken if not key.endswith("position"))


def test_an_editor_of_other_widths_is_refused() -> None:
    wide = copy.deepcopy(load_preset("nano"))
    wide["editor"]["widths"] = [128, 192, 256]
    small, large = EditorTask(load_preset("nano")).editor, EditorTask(wide).editor
    with pytest.raises(UserError, match=r"--start: an editor of other widths .* does not fit; train this preset anew"):
        grow.grow_editor(small, large)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_edge_takes_all_that_nano_has(tmp_path: Path, backbone: Backbone) -> None:
    nano, edge, out = tmp_path / "nano", tmp_path / "edge", load_preset("edge")
    for name, model in networks(load_preset("nano")).items():
        save_weights(nano / f"{name}.safetensors", model)
    (nano / "lips.json").write_text("{}")
    save_weights(nano / f"{backbone.value}.safetensors", trained(load_preset("nano"), backbone).editor)
    grow.main(nano, "nano", edge, "edge", backbone)
    models = networks(out)
    load_weights(grow.start_file(edge, backbone), models[backbone.value])
    assert float(models[backbone.value].residual.weight.abs().max()) > 0, "it starts from nano's"
    for name in grow.KEPT:
        load_weights(edge / f"{name}.safetensors", models[name])
    assert (edge / "lips.json").read_text() == "{}"


def test_where_there_is_only_a_unet_a_transformer_starts_with_its_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nano, out = tmp_path / "nano", tmp_path / "out"
    for name, model in networks(load_preset("nano")).items():
        if name != Backbone.TRANSFORMER.value:
            save_weights(nano / f"{name}.safetensors", model)
    (nano / "lips.json").write_text("{}")
    editor = trained(load_preset("nano"), Backbone.UNET).editor
    save_weights(nano / "editor.safetensors", editor)
    grow.main(nano, "nano", out, "nano", Backbone.TRANSFORMER)
    assert "the ends of an editor (editor) to start from" in capsys.readouterr().out
    models = networks(load_preset("nano"))
    load_weights(grow.start_file(out, Backbone.TRANSFORMER), models["editor_transformer"])
    assert torch.equal(models["editor_transformer"].residual.weight, editor.residual.weight)


def test_a_folder_s_own_networks_are_not_replaced(tmp_path: Path) -> None:
    trained, shipped, out = tmp_path / "trained", tmp_path / "shipped", tmp_path / "out"
    models = networks(load_preset("nano"))
    for name, model in models.items():
        save_weights(trained / f"{name}.safetensors", model)
    (trained / "lips.json").write_text("{}")
    ship.main(trained, shipped)
    with pytest.raises(UserError, match="would lose half of their precision; name another"):
        ship.main(trained, trained / ".." / "trained")
    assert read_tensors(trained / "editor.safetensors")["residual.weight"].dtype is torch.float32
    shutil.copytree(shipped, out)  # in half precision
    for _ in range(2):  # as after a run that was killed
        grow.main(shipped, "nano", out, "nano", Backbone.TRANSFORMER)

    def refused(what: str) -> None:
        before = {path: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(UserError, match=rf"--start .*shipped: .*out has another {what}; take --start .*out, or another --work"):
            grow.main(shipped, "nano", out, "nano", Backbone.TRANSFORMER)
        assert {path: path.read_bytes() for path in out.iterdir()} == before

    (out / "autoencoder.safetensors").unlink()
    (out / "lips.json").write_text('{"opening": []}')
    refused("lips.json")
    with torch.no_grad():
        next(models["lips_encoder"].parameters()).add_(0.1)
    save_weights(out / "lips_encoder.safetensors", models["lips_encoder"])
    refused("lips_encoder.safetensors, lips.json")


def test_without_a_trained_editor_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"editor.safetensors: no such file; run the training stage that writes it first"):
        grow.main(tmp_path, "nano", tmp_path / "edge", "edge")
    save_weights(tmp_path / "editor.safetensors", EditorTask(load_preset("nano")).editor)
    with pytest.raises(UserError, match=r"autoencoder.safetensors: no such file"):
        grow.main(tmp_path, "nano", tmp_path / "edge", "edge")
    for name, model in networks(load_preset("nano")).items():
        save_weights(tmp_path / f"{name}.safetensors", model)
    with pytest.raises(UserError, match=r"lips.json is missing"):
        grow.main(tmp_path, "nano", tmp_path / "edge", "edge")
    with pytest.raises(UserError, match=r"editor.safetensors: weights of another network or preset"):
        grow.main(tmp_path, "edge", tmp_path / "edge", "edge")


def test_the_recipe_takes_all_but_the_editor_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    stages = ("autoencoder", "distil_autoencoder", "lips_teacher", "lips_encoder", "audio_to_lips")
    for name in (*stages, "grow", "synthetic_clips", "latents", "editor", "refinement", "sharpening", "joint", "export"):
        monkeypatch.setattr(getattr(chain, name), "main", lambda *_, name=name, **__: done.append(name))
    monkeypatch.setattr(chain, "prepare_data", lambda *_: done.append("clips"))
    chain.main(data=tmp_path, work=tmp_path, preset="edge", start=tmp_path / "nano")
    assert done == ["grow", "clips", "synthetic_clips", "latents", "joint", "export"]
