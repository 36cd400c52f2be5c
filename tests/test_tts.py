"""Text to speech through other programs: espeak-ng where it is installed, and Piper as a stand-in that takes its command line."""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashlips_edge.errors import UserError
from flashlips_edge.tts import program
from flashlips_edge.tts.pcm import samples
from flashlips_edge.tts.program import sentences
from flashlips_edge.tts.voice import Voice, open_voice

RATE_HZ = 22_050
PER_LETTER = 100  # samples that the stand-in gives
# what both releases of Piper do: --model, --output-raw, a line of stdin at a time; it writes down who it is and what it was told
PIPER = """#!{python}
import argparse, os, pathlib, signal, subprocess, sys
parser = argparse.ArgumentParser()
parser.add_argument("-m", "--model", required=True)
parser.add_argument("--output-raw", "--output_raw", action="store_true", required=True)
parser.parse_args()
here = pathlib.Path(__file__).parent
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
(here / "pids").write_text(f"{{os.getpid()}} {{child.pid}}")
try:
    for line in sys.stdin:
        with open(here / "lines", "a", encoding="utf-8") as lines:
            lines.write(line)
        if "broken" in line:
            sys.exit("piper: no such phoneme\\n")
        sys.stdout.buffer.write(b"\\x01\\x02" * (100 * len(line.strip())))
        sys.stdout.buffer.flush()
        if "hang" in line:
            signal.pause()
finally:
    child.kill()
"""


@pytest.fixture
def piper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A voice file, and a folder on PATH with the stand-in."""
    standin = tmp_path / "piper"
    standin.write_text(PIPER.format(python=sys.executable))
    standin.chmod(standin.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    voice = tmp_path / "-amy.onnx"  # a name that could be taken for an option
    voice.write_bytes(b"weights")
    voice.with_name("-amy.onnx.json").write_text(json.dumps({"audio": {"sample_rate": RATE_HZ}}))
    return voice


def said(voice: Voice, text: str) -> np.ndarray:
    """All of a text's speech, int16 [n]."""
    pieces = list(voice.say(text))
    assert all(rate_hz == RATE_HZ and piece.dtype == np.int16 and piece.ndim == 1 for piece, rate_hz in pieces)
    return np.concatenate([piece for piece, _ in pieces]) if pieces else np.zeros(0, np.int16)


def ended(pid: int) -> bool:
    """Whether the process ends within ten seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 10)[0])
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    "text",
    [
        "Hello there. How are you?",
        "-v de --help",
        "one\ntwo\r\n\n three",
        "Grüße, schöne Welt! ok",
        "nul \0 and \x1b[1m",
        "a 3 < 4 & 5 > 2",
    ],
    ids=["plain", "like options", "lines", "umlauts", "control characters", "markup"],
)
def test_espeak_speaks_any_text(espeak: str, text: str) -> None:
    speech = said(open_voice("espeak:en-gb"), text)
    assert 0.3 * RATE_HZ < len(speech) < 20 * RATE_HZ
    assert np.abs(speech.astype(int)).max() > 3000


def test_the_first_words_of_a_long_text_come_before_the_last(espeak: str) -> None:
    pieces = open_voice("espeak:en-gb").say("All work and no play makes Jack a dull boy. " * 230)  # 10,000 characters
    first, _ = next(pieces)
    rest = sum(len(piece) for piece, _ in pieces)
    assert len(first) < RATE_HZ
    assert rest > 300 * RATE_HZ


@pytest.mark.parametrize("text", ["", " \n\t ", "...!?", "\0"])
def test_nothing_to_say_is_silence(espeak: str, piper: Path, text: str) -> None:
    assert not list(open_voice("espeak:en-gb").say(text))
    assert not list(open_voice(f"piper:{piper}").say(text))


def test_piper_reads_a_sentence_a_line(piper: Path) -> None:
    text = "--model is no option here. Second\nsentence!  Third 。四。五"
    assert len(said(open_voice(f"piper:{piper}"), text)) == PER_LETTER * len("--model is no option here.Second sentence!Third 。四。五")
    assert (piper.parent / "lines").read_text().split("\n") == [
        "--model is no option here.",
        "Second sentence!",
        "Third 。",
        "四。",
        "五",
        "",
    ]


def test_stop_silences_at_once_and_leaves_no_process(piper: Path) -> None:
    voice = open_voice(f"piper:{piper}")
    pieces = voice.say("Please hang. Never said.")
    next(pieces)
    pids = [int(pid) for pid in (piper.parent / "pids").read_text().split()]
    stopper = threading.Thread(target=voice.stop)
    stopper.start()
    assert len(list(pieces)) <= 1  # ends, though the program never would
    stopper.join(10)
    assert all(map(ended, pids))
    assert len(said(voice, "Again.")) == PER_LETTER * len("Again.")


def test_what_was_asked_for_before_a_stop_is_not_said(piper: Path) -> None:
    voice = open_voice(f"piper:{piper}")
    pieces = voice.say("Not this.")
    voice.stop()
    assert not list(pieces)
    assert not (piper.parent / "lines").exists()


def test_who_leaves_the_loop_leaves_no_process(piper: Path) -> None:
    pieces = open_voice(f"piper:{piper}").say("Please hang.")
    next(pieces)
    pids = [int(pid) for pid in (piper.parent / "pids").read_text().split()]
    del pieces
    assert all(map(ended, pids))


def test_a_program_that_fails_is_named_with_its_complaint(piper: Path) -> None:
    with pytest.raises(UserError, match=r"--voice piper:.*piper failed: piper: no such phoneme$"):
        list(open_voice(f"piper:{piper}").say("This is broken."))


def test_a_program_that_hangs_is_ended(piper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "PATIENCE_NS", 10_000_000)
    monkeypatch.setattr(program, "LOOK_NS", 400_000_000)
    pieces = open_voice(f"piper:{piper}").say("Please hang.")
    with pytest.raises(UserError, match="gave no sound for"):
        list(pieces)
    assert all(ended(int(pid)) for pid in (piper.parent / "pids").read_text().split())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("festival:en", "give espeak:LANGUAGE"),
        ("espeak:", "give espeak:LANGUAGE"),
        ("", "give espeak:LANGUAGE"),
        ("espeak:xx-nope", "has no voice 'xx-nope'"),
        ("espeak:--help", "has no voice '--help'"),
        ("espeak:../../etc/passwd", "has no voice"),
        ("piper:none.onnx", "there is no such voice file"),
    ],
)
def test_an_unknown_voice_is_refused_in_one_sentence(espeak: str, piper: Path, spec: str, says: str) -> None:
    with pytest.raises(UserError) as refused:
        open_voice(spec)
    assert str(refused.value).startswith(f"--voice {spec}") and says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("config", [None, "{", "[]", '{"audio": {}}', '{"audio": {"sample_rate": 0}}', '{"audio": {"sample_rate": "x"}}'])
def test_a_piper_voice_without_its_description_is_refused(piper: Path, config: str | None) -> None:
    described = piper.with_name("-amy.onnx.json")
    if config is None:
        described.unlink()
    else:
        described.write_text(config)
    with pytest.raises(UserError, match=r"-amy\.onnx\.json must lie beside it"):
        open_voice(f"piper:{piper}")


@pytest.mark.parametrize(("spec", "says"), [("espeak:en", "sudo apt-get install espeak-ng"), ("piper:a.onnx", "pip install piper-tts")])
def test_a_missing_program_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: str, says: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=says):
        open_voice(spec)


@given(st.text())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_no_text_makes_an_empty_line_or_loses_a_word(text: str) -> None:
    lines = sentences(text)
    lines.encode()
    if lines:
        assert all(line.strip() for line in lines[:-1].split("\n")) and lines[-1] == "\n"
    spoken = [c for c in text if c.isalnum() and c.isprintable()]
    assert [c for c in lines if c.isalnum()] == spoken


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_samples_do_not_care_where_the_bytes_are_cut(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    blocks = list(samples(data[a:b] for a, b in zip(edges, edges[1:])))
    whole = len(data) // 2
    assert np.array_equal(np.concatenate([np.zeros(0, np.int16), *blocks]), np.frombuffer(data[: 2 * whole], "<i2"))
