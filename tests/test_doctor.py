"""The doctor says what there is and what to do, and outlives what it looks at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flashlips_edge import bundle, doctor, examinations
from flashlips_edge.examinations import FAULT, NONE, OK

CUDA = """
#include <string.h>
#include <unistd.h>
int cuInit(unsigned flags) { if (STATUS < 0) for (;;) pause(); return STATUS; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 64000000000; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 7; return 0; }
"""
ALL = """
import sys
sys.modules["torch"] = None  # importing it is an error
from flashlips_edge.doctor import CHECKS
print(*(f"{name}={check().state}" for name, check in CHECKS.items()))
"""


def libcuda(folder: Path, status: int) -> dict[str, str]:
    """An environment with a driver of one sm_87 GPU whose start gives `status`, or never ends."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for a stand-in driver: sudo apt-get install gcc")
    (folder / "cuda.c").write_text(CUDA)
    library = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", f"-DSTATUS={status}", "-o", library, folder / "cuda.c"], check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


def check(name: str, environment: dict[str, str]) -> dict[str, str]:
    command = [sys.executable, "-m", "flashlips_edge.doctor", "--check", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_check_answers_and_the_exit_status_tells(repo: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "flashlips_edge.doctor", "--json"], cwd=repo, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert [each["name"] for each in report["checks"]] == list(doctor.CHECKS)
    assert all(each["found"] and each["state"] in (OK, NONE, FAULT) for each in report["checks"])
    assert report["ok"] == (done.returncode == 0) == all(each["state"] != FAULT for each in report["checks"])
    golden = next(each for each in report["checks"] if each["name"] == "bundle")
    assert golden["state"] == OK and golden["found"].count("6 graphs give their golden outputs") == 2, "nano and nano-int8"
    assert all(each["do"] for each in report["checks"] if each["state"] != OK), "what is not there comes with what to do"


def test_no_check_needs_torch(repo: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ALL], cwd=repo, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(doctor.CHECKS)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import signal, subprocess; signal.signal(15, signal.SIG_IGN); subprocess.run(['sleep', '1000'])", "gave no answer within 1 s"),
        ("import ctypes; ctypes.string_at(0)", "the check ended by SIGSEGV"),
        ("raise RuntimeError('CUDA error 35')", "the check ended RuntimeError: CUDA error 35"),
        ("print('not JSON')", "the check ended silently"),
        ("import os; os._exit(0)", "the check ended silently"),
    ],
    ids=["hangs", "crashes", "raises", "babbles", "vanishes"],
)
def test_a_check_that_fails_is_a_finding(code: str, words: str) -> None:
    line = doctor.examine("toy", [sys.executable, "-c", code], deadline_s=1 if "sleep" in code else 60)
    assert line.state == FAULT and line.found.startswith(words)
    assert line.do.startswith("see what it says with ")


def test_a_fault_makes_the_exit_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken = doctor.Line("disk", FAULT, "0.1 GB free", "make room")
    monkeypatch.setattr(doctor, "examine", lambda name, command: broken if name == "disk" else doctor.Line(name, OK, "there", ""))
    assert doctor.main([]) == 1
    assert "FAULT  disk         0.1 GB free; make room" in capsys.readouterr().out


def test_a_gpu_is_named_with_its_capability(tmp_path: Path) -> None:
    answer = check("driver", libcuda(tmp_path, 0))
    assert (answer["state"], answer["found"]) == (OK, "Orin (sm_87, 64 GB); the driver takes CUDA up to 12.6")


def test_a_driver_that_does_not_start_is_a_fault_and_one_that_hangs_is_left(tmp_path: Path) -> None:
    answer = check("driver", libcuda(tmp_path, 999))
    assert answer["state"] == FAULT and "does not start (CUDA error 999)" in answer["found"] and "reboot" in answer["do"]
    environment = libcuda(tmp_path, -1)
    command = [
        "env",
        f"LD_LIBRARY_PATH={environment['LD_LIBRARY_PATH']}",
        sys.executable,
        "-m",
        "flashlips_edge.doctor",
        "--check",
        "driver",
    ]
    assert "gave no answer" in doctor.examine("driver", command, deadline_s=3).found


def test_bindings_newer_than_the_driver_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "13.5.0")
    monkeypatch.setattr(examinations, "gpus", lambda: (["Orin"], 12060, 87))
    found = examinations.cuda()
    assert (found.state, found.do) == (FAULT, "pip install 'cuda-bindings<13'")


def test_a_bundle_that_answers_wrongly_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bundle.SHIPPED / "nano", tmp_path / "nano")
    graph = tmp_path / "nano" / "lips_encoder.onnx"
    shutil.copyfile(tmp_path / "nano" / "speech_encoder.onnx", graph)
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    found = examinations.bundle()
    assert found.state == FAULT and "lips_encoder.onnx was altered" in found.found


def test_a_full_disk_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1e8))
    assert examinations.disk().state == FAULT


MODES = """
< POWER_MODEL ID=0 NAME=15W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""


@pytest.mark.parametrize(("mode", "least", "do"), [("MAXN_SUPER", 1300500000, ""), ("15W", 306000000, "sudo nvpmodel -m 2;")])
def test_a_jetson_tells_its_power_mode_and_clocks(mode: str, least: int, do: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvpmodel"
    program.write_text(f"#!/bin/sh\necho 'NV Power Mode: {mode}'\necho 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    gpu = tmp_path / "devfreq" / "17000000.gpu"
    gpu.mkdir(parents=True)
    for name, value in {"cur": least, "min": least, "max": 1300500000}.items():
        (gpu / f"{name}_freq").write_text(f"{value}\n")
    found = examinations.power("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic", MODES, tmp_path / "devfreq")
    assert found.found == f"Jetson Linux 36.4.3, power mode {mode}, GPU at {least // 1000000} of 1300 MHz"
    assert do in found.do and bool(found.do) == bool(do)


def test_a_jetson_whose_power_mode_cannot_be_asked_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert examinations.power("# R36 (release), REVISION: 4.3", MODES, tmp_path).state == FAULT


def test_nothing_of_a_check_that_hangs_is_left(tmp_path: Path) -> None:
    code = f"import subprocess; p = subprocess.Popen(['sleep', '1000']); open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); p.wait()"
    assert doctor.examine("toy", [sys.executable, "-c", code], deadline_s=5).found == "gave no answer within 5 s"
    left = int((tmp_path / "pid").read_text())
    try:
        psutil.Process(left).wait(30)
    except psutil.NoSuchProcess:
        return
    assert not psutil.pid_exists(left)


@pytest.mark.parametrize(("machine", "cure"), [("x86_64", "pip install onnxruntime-gpu"), ("aarch64", "docs/orin.md")])
def test_a_gpu_that_stays_idle_is_named_with_what_helps_there(machine: str, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examinations, "gpus", lambda: (["one"], 12060, 87))
    monkeypatch.setattr(examinations.platform, "machine", lambda: machine)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert cure in examinations.onnx_runtime().do
