"""A live run: a face that speaks until its voice, its camera's user or Ctrl-C ends it, shown, recorded, or both."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flashlips_edge.errors import UserError
from flashlips_edge.interrupt import Interrupt
from flashlips_edge.live.stats import Stats
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.recorder import Recorder
from flashlips_edge.media.virtual_camera import VirtualCamera
from flashlips_edge.media.window import Window
from flashlips_edge.recorded import TITLE
from flashlips_edge.session import LipSync
from flashlips_edge.voices import Voice

FILE, CAMERA = "file", "virtual camera"
PATIENCE_S = 2.0  # without a first frame; then it is said why


@dataclass(frozen=True)
class LiveReport:
    """What a live run did."""

    out: Path | None
    seconds: float
    stats: Stats
    interrupted: bool = False  # a live run is meant to be ended

    def __str__(self) -> str:
        show, gauges = self.stats.counters["show"], self.stats.gauges
        made = show.left - show.repeated
        lines = [
            f"{show.left} frames in {self.seconds:.1f} s, {made} of them new, {show.repeated} repeated",
            "nothing was said"
            if self.stats.counters["lips"].entered == 0 and gauges["offset_ms_p99"] == 0
            else f"sound and picture apart: {gauges['offset_ms_p99']:.0f} ms at most in 99 % of frames; "
            f"from pushed sound to its lips: {gauges['latency_ms_p50']:.0f} ms; level {self.stats.level}",
            *self.stats.problems.values(),
        ]
        return "\n".join([str(self.out), *lines] if self.out is not None else lines)


def lip_sync_live(
    face: LipSync,
    voice: Voice,
    out: Path | None = None,
    display: bool = False,
    virtual_camera: str | None = None,
    seconds: float | None = None,
) -> LiveReport:
    """Let `face` speak with `voice`; ends with it, with Ctrl-C, the window, or after `seconds`, always with a file that plays.

    The voice starts with the first frame; until it comes, the window is black and what is wrong is said on standard error.
    virtual_camera   a device, or "" for the first that is free. UserError leaves nothing behind.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        window = stack.enter_context(Window(TITLE)) if display else None
        if virtual_camera is not None:
            face.add_sink(CAMERA, VirtualCamera(face.width, face.height, face.frame_rate, virtual_camera or None))
        if out is not None:
            face.add_sink(FILE, Recorder(out, face.frame_rate, argument="--out"))
        stop = stack.enter_context(Interrupt())
        stack.callback(voice.close)
        progress = stack.enter_context(tqdm(desc="live", unit="frame"))
        newest = black = Frame(np.zeros((face.height, face.width, 3), np.uint8))
        started = False
        said: set[str] = set()
        for frame in face.frames_or_none():
            if frame is not None:
                newest = frame
                progress.update()
            passed_s = time.perf_counter() - start
            if newest is black and passed_s >= PATIENCE_S:
                for sentence in set(face.stats().problems.values()) - said:
                    progress.write(sentence, sys.stderr)
                    said.add(sentence)
            if face.ready and newest is not black and not started:
                voice.start(face)
                started = True
            shown = window is None or window.show(newest)
            over = seconds is not None and passed_s >= seconds
            if stop.requested or over or not shown or (started and voice.ended):
                break
        stats = face.stats()
        problems = [face.remove_sink(name) for name in (FILE, CAMERA) if name in face.sinks or name in stats.problems]
    if problem := next((problem for problem in problems if problem), None):
        raise UserError(problem)
    return LiveReport(out, time.perf_counter() - start, stats)
