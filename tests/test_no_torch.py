"""The run path needs its own small packages and nothing that only training needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Imports every module of the run path where the packages for training cannot be had, and prints which of them somebody asked for.
PROBE = """
import importlib, importlib.abc, pkgutil, sys

BUILD = {"torch", "torchmetrics", "torchvision", "triton", "lightning", "lightning_fabric", "onnx", "onnxscript",
         "safetensors", "scipy", "soundfile", "matplotlib", "typer", "sounddevice", "pytest"}
asked_for = set()

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BUILD:
            asked_for.add(name)
            raise ModuleNotFoundError(f"{name} is not on the run path", name=name)

sys.meta_path.insert(0, Refuse())
import flashlips_edge

def modules(package):
    for entry in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if entry.name.split(".")[1] in {"models", "training", "evaluation"}:
            continue
        module = importlib.import_module(entry.name)
        yield entry.name
        if entry.ispkg:
            yield from modules(module)

names = set(modules(flashlips_edge))
assert {"flashlips_edge.run", "flashlips_edge.talking.talker", "flashlips_edge.session", "flashlips_edge.serve.server"} <= names, names
assert not asked_for, asked_for
assert not BUILD & {name.partition(".")[0] for name in sys.modules}
print(len(names))
"""


def test_the_run_path_imports_without_torch(repo: Path) -> None:
    result = subprocess.run([sys.executable, "-c", PROBE], cwd=repo, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10


def test_the_probe_sees_torch(repo: Path) -> None:
    probe = PROBE.replace("import flashlips_edge\n", "import flashlips_edge\ntry:\n    import torch\nexcept ImportError:\n    pass\n", 1)
    result = subprocess.run([sys.executable, "-c", probe], cwd=repo, capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "{'torch'}" in result.stderr
