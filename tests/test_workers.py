"""Nobody works on for a run that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install '.[build]'")
pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed: pip install '.[build]'")

AT_WORK = """
import sys, time
from pathlib import Path

def work(*_):
    print("at work", flush=True)
    time.sleep(3600)
"""
PREPARE = """
from flashlips_edge.training import prepare
if __name__ == "__main__":
    prepare.prepare_video = work
    prepare.main([Path(sys.argv[0])], Path(sys.argv[1]))
"""
SYNTHETIC_CLIPS = """
from flashlips_edge.training import synthetic_clips
if __name__ == "__main__":
    synthetic_clips.make = work
    synthetic_clips.main(out=Path(sys.argv[1]))
"""
TRAINING = """
from torch import nn
from flashlips_edge.training.loop import Schedule, train
if __name__ == "__main__":
    train("nothing", nn.Linear(1, 1), work, None, Schedule(steps=9, rate=1e-3), Path(sys.argv[1]), workers=2)
"""


@pytest.mark.parametrize("run", [PREPARE, SYNTHETIC_CLIPS, TRAINING], ids=["prepare", "synthetic clips", "training"])
def test_the_workers_of_a_killed_run_end_in_the_middle_of_their_work(run: str, tmp_path: Path, repo: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(AT_WORK + run)
    environment = os.environ | {"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-B", str(script), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"at work\n"
    process.kill()
    try:
        process.communicate(timeout=30)  # to the end of what all of them write to
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("a worker is still there")
