"""What the tests share: where the recorded data lies, and how a missing piece is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

REPO = Path(__file__).resolve().parent.parent

settings.register_profile("flashlips", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("flashlips")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The folder of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def data_path() -> Callable[[str], Path]:
    """Gives `data_path("test/video")`: a file or folder of the recorded data; skips the test if it is not there."""
    root = Path(os.environ.get("FLASHLIPS_DATA") or REPO.parent / "shared" / "data")

    def find(relative: str) -> Path:
        path = root / relative
        if not path.exists():
            pytest.skip(f"no {relative} in the recorded data: set FLASHLIPS_DATA to the folder that holds it")
        return path

    return find


@pytest.fixture(scope="session")
def espeak() -> str:
    """The espeak-ng program; skips the test if it is not installed."""
    program = shutil.which("espeak-ng")
    if program is None:
        pytest.skip("espeak-ng is not installed: sudo apt-get install espeak-ng")
    return program
