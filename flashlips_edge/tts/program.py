"""A program that reads text and writes PCM, for as long as somebody listens."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

from flashlips_edge.errors import UserError
from flashlips_edge.pump.clock import SECOND_NS, Clock, MonotonicClock

LOOK_NS = SECOND_NS // 5  # how often a reader looks whether it was stopped
PATIENCE_NS = 30 * SECOND_NS  # a program that is silent for longer hangs
KILL_S = 10  # what a killed process may take to end
READ_BYTES = 1 << 13
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])\s*")


class ProgramError(UserError):
    """A program failed. Its sentence is for who gave the text, as a complaint may repeat it; `told` is for anybody: what became of it."""

    def __init__(self, sentence: str, told: str):
        super().__init__(sentence)
        self.told = told


class Program:
    """Runs `command`, one process for each text, which it reads from stdin: a text is never taken for an option.

    The process is the head of a group of its own, so that a wrapper's children end with it. Any thread may call anything.
    """

    def __init__(self, command: Sequence[str], said_by: str, clock: Clock | None = None):
        self._command, self._said_by, self._clock = list(command), said_by, clock or MonotonicClock()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stops = 0

    def output(self, text: str) -> Iterator[bytes]:
        """What the program writes for a text, as it comes, sentence by sentence; nothing for a text without a letter or digit.

        Leaving the loop ends the process. Raises ProgramError if it fails or hangs, with the last line of its complaint.
        """
        return self._read(sentences(text), self._stops)

    def stop(self) -> None:
        """Kill the processes of every `output` that was asked for before; their iterators end."""
        with self._lock:
            self._stops += 1
            for process in self._running:
                _kill(process)

    def _read(self, text: str, stops: int) -> Iterator[bytes]:
        if not text:
            return
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaint:  # files: neither side ever waits for the other
            given.write(text.encode())
            given.seek(0)
            with self._lock:
                if stops != self._stops:
                    return
                process = self._start(given, complaint)
                self._running.add(process)
            try:
                yield from self._pieces(process, stops)
                status = self._status(process)
                if status != 0 and stops == self._stops:
                    told = f"exit status {status}"
                    raise ProgramError(f"{self._said_by}: {self._command[0]} failed: {_last_line(complaint) or told}", told)
            finally:
                with self._lock:
                    self._running.discard(process)
                    _kill(process)
                assert process.stdout is not None
                process.stdout.close()
                process.wait(KILL_S)

    def _status(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(PATIENCE_NS / SECOND_NS)
        except subprocess.TimeoutExpired:
            raise self._failed("did not end after its last sound and was ended") from None

    def _start(self, given: IO[bytes], complaint: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(self._command, stdin=given, stdout=subprocess.PIPE, stderr=complaint, start_new_session=True)
        except OSError as error:
            raise self._failed(f"cannot be started: {error.strerror}") from None

    def _pieces(self, process: subprocess.Popen[bytes], stops: int) -> Iterator[bytes]:
        assert process.stdout is not None
        heard_ns = self._clock.now_ns()
        while stops == self._stops:
            ready, _, _ = select.select([process.stdout], [], [], LOOK_NS / SECOND_NS)
            if ready:
                piece = os.read(process.stdout.fileno(), READ_BYTES)
                if not piece:
                    return
                if stops != self._stops:
                    return
                yield piece
                heard_ns = self._clock.now_ns()
            elif self._clock.now_ns() - heard_ns > PATIENCE_NS:
                raise self._failed(f"gave no sound for {PATIENCE_NS // SECOND_NS} s and was ended")

    def _failed(self, how: str) -> ProgramError:
        return ProgramError(f"{self._said_by}: {self._command[0]} {how}", f"its program {how}")


def sentences(text: str) -> str:
    """The text, a sentence a line, without what is not print; empty if there is nothing to say in it."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return SENTENCE_END.sub("\n", words) + "\n" if any(c.isalnum() for c in words) else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _last_line(complaint: IO[bytes]) -> str:
    complaint.seek(0)
    lines = complaint.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
