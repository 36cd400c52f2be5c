"""What a command says of what nothing in it can catch, as it happens while it is still being imported: a package that is not installed,
Ctrl-C. Only where `python -m` runs a module of ours: a program that imports us keeps its own ways."""

from __future__ import annotations

import re
import sys
from types import TracebackType

STOPPED, WRONG_USE = 130, 2
PACKAGES = ("benchmarks", "flashlips_edge", "kernels", "quantize", "targets")
DISTRIBUTIONS = {"cuda": "cuda-bindings", "cv2": "opencv-python-headless", "modelopt": "nvidia-modelopt", "yaml": "pyyaml"}


def tell() -> None:
    """Say it in one sentence, if this process is one of our commands: exit status 2, and for Ctrl-C 130 without a word."""
    if sys.argv[:1] == ["-m"] and _command().partition(".")[0] in PACKAGES:  # as Python has it while it looks for the module
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.exit(STOPPED)
    if isinstance(error, ModuleNotFoundError) and (wanted := _requirement(error.name or "")) is not None:
        print(f"{_command()}: {error.name} is not installed: pip install '{wanted}'", file=sys.stderr)
        sys.exit(WRONG_USE)
    sys.__excepthook__(kind, error, trace)


def _command() -> str:
    """The module that `python -m` runs; empty where it runs none."""
    words = sys.orig_argv
    return words[words.index("-m") + 1].removesuffix(".__main__") if "-m" in words[:-1] else ""


def _requirement(module: str) -> str | None:
    """What brings the package: ours, with the extra that names it. None where nothing of ours does."""
    from importlib import metadata

    wanted = _plain(DISTRIBUTIONS.get(module, module))
    try:
        lines = metadata.requires("flashlips-edge") or []
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return None
    extras = [re.search(r"extra == ['\"](\w+)['\"]", line) for line in lines if _plain(re.split(r"[^\w.-]", line)[0]) == wanted]
    names = [found and found[1] for found in extras]
    named = [name for name in names if name != "dev"] or names  # dev repeats the others
    return None if not named else f"flashlips-edge[{named[0]}]" if named[0] else "flashlips-edge"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
