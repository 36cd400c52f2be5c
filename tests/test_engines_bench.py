"""The benchmark of engines: what it reports holds together, and a prediction is the roofline's. That of a GPU's frame: a way that fails."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")

from benchmarks import engines, gpu_frame  # noqa: E402
from flashlips_edge.bundle import Bundle  # noqa: E402
from flashlips_edge.errors import UserError  # noqa: E402
from kernels.table import find_target  # noqa: E402


def test_a_few_frames_are_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cpu", "--frames", "3", "--out", str(tmp_path / "out"), "--bundles", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks.engines", *arguments])
    engines.main()
    report = json.loads((tmp_path / "out" / "engines-cpu-nano.json").read_text())
    assert (tmp_path / "out" / "engines-cpu-nano.png").read_bytes().startswith(b"\x89PNG")
    for row in (report["whole"], *report["stages"].values(), *report["graphs"].values()):
        assert 0 < row["p50"] <= row["p95"] <= row["p99"] <= row["largest"]
    assert set(report["stages"]) == {"decode", "face", "networks", "paste"} and len(report["frames_ms"]) == 3
    assert report["whole"]["frames_per_second"] <= report["networks_frames_per_second"]
    assert report["cold_s"] > 0 and report["host_mb"] > 50 and set(report["engines"].values()) == {"OnnxRuntimeEngine"}
    printed = capsys.readouterr().out
    assert "with decoding and pasting" in printed and "predicted, not measured" in printed and "assumed: a kernel costs 0.58 us" in printed


def test_a_prediction_is_the_roofline_s_and_int8_is_faster() -> None:
    orin = find_target("orin").chip
    assert orin is not None
    compute, memory = (85 * 10**12, 1, "int8"), (1, 2048 * 10**8, "fp16")
    assert engines.least_seconds([compute], orin) == pytest.approx(1)
    assert engines.least_seconds([memory], orin) == pytest.approx(1)
    assert engines.least_seconds([compute, memory], orin) == pytest.approx(2)
    nano = Bundle.open("nano")
    wide = engines.work(nano, "editor")
    narrow = [(operations, traffic // 4, "int8") for operations, traffic, _ in wide]
    assert sum(operations for operations, _, _ in wide) > 5e8
    assert engines.least_seconds(narrow, orin) < engines.least_seconds(wide, orin)
    large, small = (engines.predict(nano, find_target(name)) for name in ("orin", "orin-nano"))
    for rate in ("replayed_frames_per_second", "launched_frames_per_second"):
        assert large[rate] > small[rate]


def test_a_small_network_waits_for_its_kernels() -> None:
    predicted = engines.predict(Bundle.open("nano"), find_target("datacentre"))
    busy = sum(predicted[f"{graph}_ms"] for graph in engines.PICTURE_GRAPHS)
    assert predicted["kernels"] > 50
    assert 1e3 / predicted["launched_frames_per_second"] == pytest.approx(busy + 6.4e-3 * predicted["kernels"], rel=0.01)
    assert busy < 1e3 / predicted["replayed_frames_per_second"] < 1e3 / predicted["launched_frames_per_second"]


def _sensor(folder: Path, rails: dict[str, tuple[int, int]]) -> None:
    folder.mkdir(parents=True)
    for number, (name, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        (folder / f"in{number}_label").write_text(f"{name}\n")
        (folder / f"in{number}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")
    (folder / "in7_label").write_text("sum of shunt voltages\n")  # which has no current


@pytest.mark.parametrize(
    ("rails", "watts"),
    [
        ({"VDD_IN": (5000, 2000), "VDD_CPU_GPU_CV": (5000, 1000), "VDD_SOC": (5000, 400)}, 10.0),
        ({"VDD_GPU_SOC": (20000, 500), "VDD_CPU_CV": (20000, 200), "VIN_SYS_5V0": (5000, 1000), "VDDQ_VDD2_1V8AO": (1800, 99)}, 19.0),
    ],
    ids=["orin nano", "agx orin"],
)
def test_a_jetson_s_power_is_that_of_the_whole_module(rails: dict[str, tuple[int, int]], watts: float, tmp_path: Path) -> None:
    _sensor(tmp_path / "hwmon3", rails)
    assert engines.power_w(tmp_path) == watts


def test_power_is_asked_for_while_the_networks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    running, asked = threading.Event(), []

    class Toy:
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            running.set()
            return inputs

    monkeypatch.setattr(engines, "power_w", lambda: asked.append(running.wait(60)) or 7.0)
    feeds = {graph: {"x": np.zeros((1, 1))} for graph in engines.PICTURE_GRAPHS}
    assert engines.power_at_work(dict.fromkeys(feeds, Toy()), feeds) == 7.0 and asked == [True]  # type: ignore[arg-type]


def test_a_target_without_a_bundle_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make engine TARGET=orin PRESET=nano"):
        engines.find_bundle(find_target("orin"), "nano", tmp_path)


def test_a_way_that_fails_costs_no_other_its_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delattr(torch.nn.functional, "scaled_mm", raising=False)  # as before torch 2.10
    monkeypatch.setattr(gpu_frame, "autoencoders", lambda preset, _: {"ours": gpu_frame.Autoencoder(**preset["autoencoder"])})
    rows = list(gpu_frame.rows_of("nano", [1], ["fp8", "bf16"], "cpu", None))
    assert [(row["editor"], row["way"]) for row in rows] == [("U-Net", "bf16"), ("transformer", "bf16")]
    assert all(row["error"] < gpu_frame.WRONG for row in rows)
    assert capsys.readouterr().err.count("fp8 is left out: torch ") == 1


@pytest.mark.parametrize("batch", [1, 2])
def test_a_product_in_fp8_is_handed_rows(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a transposed map, which at batch 1 lies by columns: a GPU refuses those."""
    taken: list[bool] = []

    def product(x: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        taken.append(x.is_contiguous())
        return torch.zeros(len(x), 32)

    monkeypatch.setattr(torch.nn.functional, "scaled_mm", product, raising=False)
    linear = gpu_frame.Fp8Linear(torch.nn.Linear(16, 32).requires_grad_(False))
    assert linear(torch.randn(batch, 16, 5, 4).flatten(2).transpose(1, 2)).shape == (batch, 20, 32) and taken == [True]
