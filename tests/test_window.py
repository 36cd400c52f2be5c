"""The window: shown where there is a display, one sentence where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from flashlips_edge.errors import UserError
from flashlips_edge.media import window
from flashlips_edge.media.window import Window

SHOW = """
import numpy as np
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.window import Window, why_none

assert why_none() is None
with Window("test") as window:
    assert window.show(Frame(np.zeros((4000, 300, 3), np.uint8)))
    assert window._root.winfo_height() <= window._root.winfo_screenheight()
    assert window.show(Frame(np.full((48, 65, 3), 200, np.uint8)))
    assert (window._root.winfo_width(), window._root.winfo_height()) == (65, 48)
    assert window._picture.get(64, 47) == (200, 200, 200)
    window._root.event_generate("<Escape>")
    window._root.update()
assert not window.show(Frame(np.zeros((48, 65, 3), np.uint8)))
"""


def test_without_a_display_it_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert window.why_none() is not None
    with pytest.raises(UserError) as refusal:
        Window("test")
    assert str(refusal.value).startswith("--display: ") and "\n" not in str(refusal.value)


def test_without_tkinter_it_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(UserError, match="python3-tk"):
        Window("test")


def test_frames_are_shown_on_a_virtual_display(repo):
    server = shutil.which("xvfb-run")
    if server is None or find_spec("tkinter") is None:
        pytest.skip("no virtual display: sudo apt-get install xvfb python3-tk")
    command = [server, "-a", "-s", "-screen 0 800x600x24", sys.executable, "-c", SHOW]
    result = subprocess.run(command, cwd=repo, env=os.environ, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
