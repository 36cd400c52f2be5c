"""python -m flashlips_edge.doctor: what this machine has for FlashLips Edge, one line each, with what to do where something is missing.

Every check runs in a process of its own under a deadline: a library that crashes or hangs is a finding and not the doctor's end.
Exit status: 0 when nothing is broken (a machine without a GPU, camera or microphone is not), 1 for a fault, 2 for wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from flashlips_edge import examinations
from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.examinations import FAULT, Finding

PROGRAM = "flashlips_edge.doctor"
DEADLINE_S = 60.0
KILLED_S = 2.0  # for a killed process to go; one that hangs in a driver may never
AT_ONCE = 2
CHECKS: dict[str, Callable[[], Finding]] = {
    "python": examinations.python,
    "disk": examinations.disk,
    "bundle": examinations.bundle,
    "onnxruntime": examinations.onnx_runtime,
    "codecs": examinations.codecs,
    "camera": examinations.cameras,
    "microphone": examinations.microphone,
    "loudspeaker": examinations.loudspeaker,
    "window": examinations.window,
    "driver": examinations.driver,
    "cuda": examinations.cuda,
    "tensorrt": examinations.tensorrt,
    "triton": examinations.triton,
    "jetson": examinations.jetson,
}


@dataclass(frozen=True)
class Line:
    """A finding with the name of its check."""

    name: str
    state: str
    found: str
    do: str

    def __str__(self) -> str:
        return f"{self.state:<6} {self.name:<12} {self.found}{f'; {self.do}' if self.do else ''}"


def examine(name: str, command: Sequence[str], deadline_s: float = DEADLINE_S) -> Line:
    """Run a check's process, which prints a finding as JSON; what it does instead of that is a fault."""
    again = f"see what it says with {' '.join(command)}"
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:  # a pipe would be held open by what it has started
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True)
        try:
            status = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            return Line(name, FAULT, f"gave no answer within {deadline_s:g} s", again)
        finally:
            _end(process)
        output.seek(0)
        errors.seek(0)
        said, complaint = output.read().decode(errors="replace"), errors.read().decode(errors="replace")
    try:
        return Line(name, **json.loads(said.strip().splitlines()[-1]))
    except (ValueError, TypeError, IndexError):
        reason = f"by {signal.Signals(-status).name}" if status < 0 else (complaint.strip().splitlines() or ["silently"])[-1][:200]
        return Line(name, FAULT, f"the check ended {reason}", again)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(KILLED_S)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = Parser(prog=f"python -m {PROGRAM}", description="What this machine has, one line each, and what to do.")
    parser.add_argument("--json", action="store_true", help="one JSON object: ok, and checks with name, state, found, do")
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)  # one check, in this process
    with one_sentence(PROGRAM):
        options = parser.parse_args(arguments)
    if options.check:
        print(json.dumps(asdict(CHECKS[options.check]())))
        return 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(examine, name, [sys.executable, "-m", PROGRAM, "--check", name]) for name in CHECKS]
        lines = []
        for each in running:
            lines.append(each.result())
            if not options.json:
                print(lines[-1], flush=True)
    faults = [line.name for line in lines if line.state == FAULT]
    if options.json:
        print(json.dumps({"ok": not faults, "checks": [asdict(line) for line in lines]}, indent=2))
    else:
        print(f"broken: {', '.join(faults)}" if faults else "nothing is broken")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
