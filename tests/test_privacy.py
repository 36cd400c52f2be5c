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
