"""Nothing that runs on a device tells anybody about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROBE = """
from flashlips_edge.bundle import Bundle
from flashlips_edge.engines.onnxruntime import OnnxRuntimeEngine

bundle = Bundle.open("nano")
OnnxRuntimeEngine(bundle.graph_path("lips_encoder")).run(bundle.golden("lips_encoder")[0])
print("ran")
"""


def test_running_a_network_leaves_nothing_in_the_home_folder(tmp_path: Path, repo: Path) -> None:
    quiet = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "GITHUB_ACTIONS"}  # with which ONNX Runtime is silent anyhow
    surroundings = {name: value for name, value in os.environ.items() if name not in quiet and not name.startswith("XDG_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=repo, env={**surroundings, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "ran\n", done.stderr
    assert not list(tmp_path.rglob("*")), "telemetry is kept in ~/.cache until it is sent"


def test_who_imports_onnxruntime_first_is_told_of_its_telemetry(repo: Path) -> None:
    words = [sys.executable, "-c", "import onnxruntime, flashlips_edge"]
    surroundings = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | {"CI": "1"}
    for more, told in ({}, True), ({"ORT_DISABLE_TELEMETRY": "1"}, False):
        done = subprocess.run(words, cwd=repo, env=surroundings | more, capture_output=True, text=True, timeout=60)
        assert ("import it later, or set ORT_DISABLE_TELEMETRY=1" in done.stderr) is told and done.returncode == 0
