"""The soak: what is sound passes, what leaks is caught."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from faces import write_faces
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import tiny_bundle

from flashlips_edge import soak
from flashlips_edge.pump.clock import MonotonicClock
from flashlips_edge.session import LipSync

LEVEL = soak.Sample(
    at_s=0,
    memory_mb=200,
    threads=20,
    handles=30,
    drift_ms=-20,
    offset_ms_p50=5,
    offset_ms_p99=12,
    latency_ms_p50=150,
    frame_gap_ms_max=60,
    since_frame_ms=20,
    sound_queued_ms=0,
    level=0,
    frames=0,
    repeated=0,
    dropped=0,
    restarts=0,
)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A folder with bundle/ and face.mp4."""
    folder = tmp_path_factory.mktemp("media")
    tiny_bundle(folder / "bundle")
    write_faces(folder / "face.mp4", 10)
    return folder


@pytest.fixture(scope="module")
def session(media) -> Iterator[LipSync]:
    with LipSync.open(media / "bundle", avatar=media / "face.mp4", threads=1, on_frame=lambda frame: None) as session:
        yield session


def lived(session: LipSync, seconds: float, plant: str = "nothing") -> dict:
    plants = soak.Plants()
    try:
        return soak.soak(session, MonotonicClock(), seconds, seconds / 60, getattr(plants, plant), lambda: False)
    finally:
        plants.end()


def beyond(report: dict) -> set[str]:
    return {name for name, value in report["found"].items() if value > soak.LIMITS[name]}


def test_a_session_that_lives_well_is_found_sound(session):
    report = lived(session, 10)
    assert report["sound"] and beyond(report) == set(), soak.summary(report)
    assert report["sentences"] >= 2 and report["segments"] >= 3 and report["problems"] == []
    assert report["samples"][-1]["frames"] > report["samples"][0]["frames"]
    assert soak.summary(report).startswith("sound over 0.00 h: memory_rise_mb")


@pytest.mark.parametrize(("plant", "measure"), [("memory", "memory_rise_mb"), ("thread", "threads_rise"), ("handle", "handles_rise")])
def test_a_planted_leak_is_caught(session, plant, measure):
    report = lived(session, 4, plant)
    assert not report["sound"] and measure in beyond(report)
    assert re.search(rf"NOT SOUND .*{measure} \S+ \(limit ", soak.summary(report))


def test_planted_memory_is_new_where_the_heap_has_some_to_spare():
    """As after many other tests: what was freed stays with the process, and is given out again."""
    large = [np.ones(24 << 20, np.uint8)]
    large.clear()  # from now on blocks as large come out of the heap
    freed, pin = [np.ones(soak.PLANTED_BYTES, np.uint8) for _ in range(12)], np.ones(4 << 20, np.uint8)
    freed.clear()
    before, plants = psutil.Process().memory_info().rss, soak.Plants()
    for _ in range(10):
        plants.memory()
    assert psutil.Process().memory_info().rss - before > 9 * soak.PLANTED_BYTES and pin.size
    plants.end()


def test_interruptions_that_are_not_counted_are_found(session, monkeypatch):
    monkeypatch.setattr(soak, "INTERRUPTED", 1.0)
    monkeypatch.setattr(soak, "SENTENCE_S", (0.2, 0.3))
    monkeypatch.setattr(soak, "PAUSE_S", (0.0, 0.1))
    monkeypatch.setattr(session, "interrupt", lambda: None)
    assert "epochs_lost" in beyond(lived(session, 2))


@given(st.lists(st.floats(-6, 6), min_size=60, max_size=60), st.integers(0, 59), st.floats(-1000, 1000))
def test_noise_and_an_outlier_are_no_leak_and_a_slow_leak_is_one(noise, at, outlier):
    level = [replace(LEVEL, at_s=60 * i, memory_mb=200 + noise[i]) for i in range(60)]
    level[at] = replace(level[at], memory_mb=200 + outlier)
    leaking = [replace(sample, memory_mb=sample.memory_mb + 1.5 * i, handles=30 + i // 10) for i, sample in enumerate(level)]
    assert soak.judge(level, 0)["memory_rise_mb"] <= soak.LIMITS["memory_rise_mb"]
    found = soak.judge(leaking, 0)
    assert found["memory_rise_mb"] > soak.LIMITS["memory_rise_mb"] and found["handles_rise"] > soak.LIMITS["handles_rise"]


def test_drift_and_stalls_are_found():
    drifting = [replace(LEVEL, at_s=60 * i, drift_ms=-20 - i) for i in range(60)]
    assert soak.judge(drifting, 0)["drift_ms"] > soak.LIMITS["drift_ms"]
    stalled = [replace(LEVEL, at_s=60 * i, since_frame_ms=3000 if i == 50 else 20) for i in range(60)]
    assert soak.judge(stalled, 0)["stalls"] == 1
    assert soak.judge(stalled[:7], 0) == {}


def test_the_command_ends_with_ctrl_c_and_reports_so_far(media, tmp_path):
    words = ["--hours", "0.02", "--bundle", media / "bundle", "--avatar", media / "face.mp4", "--report", tmp_path / "soak.json"]
    command = [sys.executable, "-m", "flashlips_edge.soak", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [next(line for line in process.stderr if "handles" in line) for _ in range(10)]
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    report = json.loads((tmp_path / "soak.json").read_text())
    assert "Traceback" not in errors and process.returncode == (0 if report["sound"] else 1)
    assert len(report["samples"]) >= len(lines) and not report["whole"] and report["hours"] < 0.02
    assert output.count("\n") == 1 and "memory_rise_mb" in output


def test_a_verdict_is_told_where_its_report_cannot_be_written(capsys, monkeypatch, tmp_path):
    report = {"sound": True, "hours": 72.0, "found": dict.fromkeys(soak.LIMITS, 0.0)}
    monkeypatch.setattr(soak, "run", lambda options: report)
    monkeypatch.setattr(Path, "write_bytes", no_room)
    assert soak.main(["--report", str(tmp_path / "soak.json")]) == 2
    output = capsys.readouterr()
    assert output.out.startswith("sound over 72.00 h")
    assert (
        output.err
        == f"flashlips_edge.soak: cannot write {tmp_path}/soak.json: No space left on device; make room, or choose another place\n"
    )
    assert not list(tmp_path.iterdir())


def no_room(path: Path, data: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--hours", "0"], "--hours 0 is out of range: more than 0"),
        (["--hours", "nan"], "--hours nan is out of range"),
        (["--hours", "1", "--avatar", "a.mp4", "--camera", "0"], "give either --avatar VIDEO|FOLDER or --camera"),
        (["--hours", "1", "--avatar", "missing.mp4"], "missing.mp4"),
        (["--hours", "1", "--plant", "tree"], "invalid choice: 'tree'"),
        (["--threads", "0"], "--threads 0 is out of range: 1 to 256"),
        (["--avatar", "missing.mp4", "--report", str(Path(__file__).parent)], "this is a folder; give the name of a file"),
        (["--avatar", "missing.mp4", "--report", f"{__file__}/soak.json"], "soak.json: it cannot be written: Not a directory"),
    ],
    ids=["no time", "no number", "two faces", "no file", "no leak", "threads", "a folder", "no folder"],
)
def test_wrong_use_is_one_sentence(capsys, words, sentence):
    assert soak.main(words) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and output.err.startswith("flashlips_edge.soak: ") and sentence in output.err
