"""The benchmark of engines: what it reports holds together, and a prediction is the roofline's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")

from benchmarks import engines
from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from kernels.table import find_target


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
    assert "with decoding and pasting" in printed and "predicted from FLOPs and bytes, not measured" in printed


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
    assert (
        engines.predict(nano, find_target("orin"))["frames_per_second"]
        > engines.predict(nano, find_target("orin-nano"))["frames_per_second"]
    )


def test_a_target_without_a_bundle_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make engine TARGET=orin PRESET=nano"):
        engines.find_bundle(find_target("orin"), "nano", tmp_path)
