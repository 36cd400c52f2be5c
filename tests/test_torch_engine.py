"""The engine that developers compare with: the same protocol, and one command that sets a bundle beside the weights it was made of."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install '.[build]'")

from flashlips_edge.bundle import GRAPHS  # noqa: E402
from flashlips_edge.engines.torch import TorchEngine  # noqa: E402
from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models import presets  # noqa: E402
from flashlips_edge.models.networks import networks  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training.checkpoint import save_weights  # noqa: E402
from flashlips_edge.training.compare import main  # noqa: E402
from flashlips_edge.training.export import export  # noqa: E402


def engine() -> TorchEngine:
    return TorchEngine(torch.nn.Linear(3, 2), {"x": ["batch", 3]}, {"y": ["batch", 2]})


def test_it_runs_arrays_and_counts() -> None:
    linear = engine()
    given = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    (expected,) = linear.run({"x": given}).values()
    assert expected.shape == (5, 2) and linear.runs == 1 and linear.seconds > 0
    on_device = linear.run_on_device({"x": torch.from_numpy(given)})
    assert np.array_equal(on_device["y"].numpy(), expected) and linear.runs == 2


@pytest.mark.parametrize(
    ("inputs", "words"),
    [({}, r"inputs are \[\], the network takes \['x'\]"), ({"x": np.zeros((2, 4), np.float32)}, r"input x has shape \(2, 4\)")],
    ids=["missing", "shape"],
)
def test_a_wrong_input_is_named(inputs: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        engine().run(inputs)


def test_a_device_that_torch_does_not_have_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.nn.Linear(3, 2)
    with pytest.raises(UserError, match="--device tpu: an engine of torch runs on cpu or cuda"):
        TorchEngine(module, {}, {}, "tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch finds no NVIDIA GPU here"):
        TorchEngine(module, {}, {}, "cuda")


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="needs torch, which is missing: pip install"):
        TorchEngine(None, {}, {})


def test_a_bundle_is_set_beside_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    preset = copy.deepcopy(load_preset("nano"))
    preset["editor"] |= {"widths": [16, 32], "blocks": [1, 1]}
    preset["audio_to_lips"] |= {"layers": 1, "steps": 2}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(preset))
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    torch.manual_seed(0)
    models = networks(preset)
    for name, model in models.items():
        save_weights(tmp_path / f"{name}.safetensors", model)
    (tmp_path / "lips.json").write_text(json.dumps({"opening": [1.0] + [0.0] * 11, "closed": [0.0] * 12}))
    bundle = export("small", tmp_path, tmp_path / "bundle")
    main(str(bundle), tmp_path, runs=1)
    assert apart(capsys.readouterr().out) == dict.fromkeys(GRAPHS, 0.0)
    with torch.no_grad():
        [*models["lips_encoder"].parameters()][-1].add_(1)
    save_weights(tmp_path / "lips_encoder.safetensors", models["lips_encoder"])
    main(str(bundle), tmp_path, runs=1)
    assert [name for name, share in apart(capsys.readouterr().out).items() if share > 1] == ["lips_encoder"]


def apart(printed: str) -> dict[str, float]:
    """Percent by graph."""
    return {name: float(share) for name, share in re.findall(r"^(\w+) +([\d.]+)%.* ms .* ms$", printed, re.M)}


def test_a_mistake_is_one_sentence() -> None:
    with pytest.raises(UserError, match="--weights nowhere: autoencoder.safetensors is missing; run make train first"):
        main("nano", Path("nowhere"))
