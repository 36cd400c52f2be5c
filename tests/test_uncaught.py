"""A command whose package is not installed says which extra brings it; Ctrl-C while it is still being imported ends it quietly."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

try:
    metadata.distribution("flashlips-edge")
except metadata.PackageNotFoundError:
    pytest.skip("flashlips-edge is not installed, and what is tells its extras: pip install -e .", allow_module_level=True)

# Python runs it before anything else: of some packages it says that they are not installed, at another it presses Ctrl-C
START = """
import importlib.abc, os, signal, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in os.environ["MISSING"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name == os.environ["INTERRUPTED"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Refuse())
"""
BUILD = "torch typer safetensors onnx scipy matplotlib lightning_fabric torchmetrics triton soundfile"
COMMANDS = (
    "benchmarks.engines",
    "flashlips_edge.evaluation",
    "flashlips_edge.models",
    "flashlips_edge.training",
    "flashlips_edge.training.personal",
    "flashlips_edge.training.prepare",
    "flashlips_edge.training.synthetic_head",
    "kernels.bench",
    "quantize",
    "targets.build",
)


def started(folder: Path, repo: Path, *words: str, missing: str = "", interrupted: str = "") -> subprocess.CompletedProcess:
    (folder / "sitecustomize.py").write_text(START)
    places = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    around = os.environ | {"PYTHONPATH": places, "MISSING": missing, "INTERRUPTED": interrupted}
    return subprocess.run([sys.executable, *words], cwd=repo, env=around, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_its_packages_names_the_extra(command: str, repo: Path, tmp_path: Path) -> None:
    done = started(tmp_path, repo, "-m", command, "--sheet=a.png", missing=BUILD)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"{command}: ") and done.stderr.endswith(" is not installed: pip install 'flashlips-edge[build]'\n")


@pytest.mark.parametrize("package", ["av", "cv2"])
def test_without_a_package_of_the_run_path_the_whole_is_named(package: str, repo: Path, tmp_path: Path) -> None:
    done = started(tmp_path, repo, "-m", "flashlips_edge.soak", "--help", missing=package)
    assert (done.returncode, done.stderr) == (2, f"flashlips_edge.soak: {package} is not installed: pip install 'flashlips-edge'\n")


def test_what_is_no_package_of_ours_is_still_an_error(repo: Path, tmp_path: Path) -> None:
    done = started(tmp_path, repo, "-m", "flashlips_edge.run", "--help", missing="flashlips_edge.pump")
    assert done.returncode == 1 and "Traceback" in done.stderr and "pip install" not in done.stderr


@pytest.mark.parametrize("package", ["numpy", "cv2", "onnxruntime", "flashlips_edge.talking.talker"])
def test_ctrl_c_during_the_imports_ends_it_quietly(package: str, repo: Path, tmp_path: Path) -> None:
    done = started(tmp_path, repo, "-m", "flashlips_edge.run", "--help", interrupted=package)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_program_that_imports_us_keeps_its_own_ways(repo: Path, tmp_path: Path) -> None:
    done = started(tmp_path, repo, "-c", "import flashlips_edge.models.networks", missing=BUILD)
    assert done.returncode == 1 and "Traceback" in done.stderr
