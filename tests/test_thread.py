"""A thread that is waited for although somebody lost patience."""

from __future__ import annotations

import subprocess
import sys
import threading

from flashlips_edge.pump.thread import Thread

IMPATIENT = """
import os, signal, threading
from flashlips_edge.pump.stage import Stage

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
begun, over = threading.Event(), threading.Event()

def items():
    begun.set()
    while not over.wait(0.5):  # as a network, which nobody can interrupt
        pass
    os.write(1, b"came back")
    yield

stage = Stage("slow", items())
stage.start()
begun.wait()
later = threading.Timer(0.3, over.set)
later.daemon = True
try:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    stage.join()
except KeyboardInterrupt:
    print("given up" if not stage.done else "taken for ended", end=", ", flush=True)
later.start()
"""


def test_a_program_ends_after_its_threads_though_ctrl_c_broke_off_the_wait() -> None:
    done = subprocess.run([sys.executable, "-c", IMPATIENT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "given up, came back", "")


def test_it_is_over_when_its_work_is_and_does_not_wait_for_itself() -> None:
    go, found = threading.Event(), []

    def work() -> None:
        assert go.wait(20)
        found.append(thread.wait(20))

    thread = Thread("test", work, go.set)
    thread.start()
    assert not thread.wait(0.05) and not thread.over.is_set()
    go.set()
    assert thread.wait(20) and found == [False]
