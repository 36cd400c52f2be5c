"""The ablations train each variant once, on equal steps, and keep what they measured; the throughput says two figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

from flashlips_edge.errors import UserError  # noqa: E402
from flashlips_edge.models.autoencoder import Autoencoder  # noqa: E402
from flashlips_edge.models.lips import LipsEncoder  # noqa: E402
from flashlips_edge.models.presets import load_preset  # noqa: E402
from flashlips_edge.training import ablations, throughput  # noqa: E402
from flashlips_edge.training.checkpoint import save_weights  # noqa: E402
from flashlips_edge.training.lips_teacher import TeacherTask  # noqa: E402

Arguments = dict[str, Path]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    """People of noise, untrained networks, and two variants."""
    preset = load_preset("nano")
    (tmp_path / "latents").mkdir()
    monkeypatch.setattr(throughput, "PEOPLE", 2)
    throughput.make_people(preset, tmp_path / "latents")
    torch.manual_seed(0)
    weights = tmp_path / "weights"
    save_weights(weights / "autoencoder.safetensors", Autoencoder(**preset["autoencoder"]))
    save_weights(weights / "teacher_task.safetensors", TeacherTask(preset))
    save_weights(weights / "lips_encoder.safetensors", LipsEncoder(**preset["lips"]))
    (weights / "lips.json").write_text(json.dumps({"opening": np.ones(12).tolist(), "closed": np.zeros(12).tolist()}))
    chosen = [v for v in ablations.VARIANTS if v.references == 1 or v.refined]
    monkeypatch.setattr(ablations, "VARIANTS", chosen)
    monkeypatch.setattr(ablations, "FRAMES", 6)
    return {"latents": tmp_path / "latents", "weights": weights, "work": tmp_path / "work", "out": tmp_path / "ablations.json"}


def test_each_variant_is_measured_once(arguments: Arguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ablations.main(steps=2, **arguments)
    first = json.loads(arguments["out"].read_text())
    assert (first["preset"], first["steps"]) == ("nano", 2)
    assert list(first["rows"]) == ["1 reference", "refined for half of the steps"]
    for row in first["rows"].values():
        assert row["mouth_hidden_db"] > 3 and row["another_frame_db"] > 3 and -1 <= row["opening_r"] <= 1
    assert first["rows"]["1 reference"]["parameters"] < first["rows"]["refined for half of the steps"]["parameters"]
    lines = capsys.readouterr().out.splitlines()
    monkeypatch.setattr(ablations, "learn", None)
    ablations.main(steps=2, **arguments)
    assert capsys.readouterr().out.splitlines() == [line for line in lines if "opening r" in line]
    with pytest.raises(UserError, match="holds 2 steps of preset nano; name another file for 5 of nano"):
        ablations.main(steps=5, **arguments)


@pytest.mark.parametrize(
    "found", ["{", "[]", '{"self_drive.seam.talk": 1.0}', '{"preset": "nano", "steps": 2, "rows": {"1 reference": {"parameters": 1}}}']
)
def test_a_file_that_is_not_its_own_is_left_alone(found: str, arguments: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "learn", lambda *_: pytest.fail("it trained"))
    arguments["out"].write_text(found)
    with pytest.raises(UserError, match=r"--out .*ablations\.json: is there and holds no figures of ablations, or is damaged"):
        ablations.main(steps=2, **arguments)
    assert arguments["out"].read_text() == found


def test_the_variants_differ_from_the_first_in_one_thing() -> None:
    first, *others = ablations.VARIANTS
    for other in others:
        changed = [name for name in ("dimensions", "references", "backbone", "refined") if getattr(other, name) != getattr(first, name)]
        assert len(changed) == 1, other.name


def test_throughput_says_what_is_drawn_what_is_used_and_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(throughput, "PEOPLE", 2)
    monkeypatch.setattr(throughput, "WARM_UP", 1)
    throughput.main(["nano"], steps=1, batch=4, workers=1, out=tmp_path / "throughput.json")
    (row,) = json.loads((tmp_path / "throughput.json").read_text())
    assert row["preset"] == "nano" and row["batch"] == 4 and row["drawn_per_second"] > 0 and row["used_per_second"] > 0
    assert 3 * 1.5 < row["gflop_per_sample"] < 10, "editor and half of the decoder, forwards and backwards, and the teacher"
    assert f"draw {row['drawn_per_second']:8.1f} samples/s" in capsys.readouterr().out


def test_what_many_workers_had_ready_before_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that take a second for a batch each, begin together, and wait for nobody."""
    now = 0.0

    class Loader:
        def __init__(self, *_: Any, sampler: range, num_workers: int, **__: Any) -> None:
            self.sampler, self.workers = sampler, num_workers

        def __iter__(self) -> Iterator[None]:
            nonlocal now
            for index in self.sampler:
                now = index // self.workers + 1.0
                yield

    monkeypatch.setattr(throughput, "DataLoader", Loader)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: now))
    for workers in (1, 24):
        assert throughput.drawn_per_second(lambda _: None, 20, 4, workers) == 4 * workers
