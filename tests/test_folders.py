"""A folder that is made beside its place: what a killed process left goes with the next run, what is not surely that stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flashlips_edge.folders import beside

AT_WORK = """
import sys, time
from pathlib import Path
from flashlips_edge.folders import beside

with beside(Path(sys.argv[1])) as folder:
    (folder / "face.png").touch()
    print(folder, flush=True)
    time.sleep(60)
"""


@contextmanager
def at_work(place: Path) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A process that makes `place`, and the hidden folder in which it does."""
    with subprocess.Popen([sys.executable, "-c", AT_WORK, str(place)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def killed(place: Path) -> Path:
    """The hidden folder that a killed process left."""
    with at_work(place) as (process, folder):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / "face.png").exists()
    return folder


def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path: Path) -> None:
    left = killed(tmp_path / "ada")
    with beside(tmp_path / "ada") as folder:
        assert list(tmp_path.iterdir()) == [folder] and folder != left
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_process_that_is_at_work_stays(tmp_path: Path) -> None:
    with at_work(tmp_path / "ada") as (_, folder):
        with beside(tmp_path / "ada"):
            pass
        assert (folder / "face.png").exists()


@pytest.mark.parametrize("why", ["no claim", "another's name", "a link", "a claim that is a pipe"])
def test_what_is_not_surely_left_by_such_a_process_stays(why: str, tmp_path: Path) -> None:
    place = tmp_path / "ada"
    left = killed(tmp_path / ("ada.live" if why == "another's name" else "ada"))
    (claim,) = (path for path in left.iterdir() if path.name != "face.png")
    if why == "a link":
        left = left.rename(tmp_path / "elsewhere")
        (tmp_path / ".ada.linked").symlink_to(left)
    elif why != "another's name":
        claim.unlink()
        if why == "a claim that is a pipe":
            os.mkfifo(claim)
    with beside(place):
        pass
    assert (left / "face.png").exists()
