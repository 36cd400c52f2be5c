"""A run on recordings: an avatar, and speech or a driving face; a file, a window, or both, as the result."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flashlips_edge.errors import UserError
from flashlips_edge.interrupt import Interrupt
from flashlips_edge.media.audio_file import SPEECH_RATE_HZ, Sound
from flashlips_edge.media.clip import Clip
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter
from flashlips_edge.media.window import Window
from flashlips_edge.pump.clock import SECOND_NS, MonotonicClock
from flashlips_edge.pump.pacing import Pace
from flashlips_edge.talking.talker import Talker

TITLE = "FlashLips Edge"
PIECE = 10 * SPEECH_RATE_HZ  # speech made into lips between two looks at Ctrl-C


@dataclass(frozen=True)
class Report:
    """What a run made: frames, its seconds, the seconds of each stage (stages overlap), whether Ctrl-C ended it."""

    out: Path | None
    frames: int
    seconds: float
    stages: dict[str, float]
    interrupted: bool = False

    def __str__(self) -> str:
        total = sum(self.stages.values()) or 1.0
        shares = sorted(self.stages.items(), key=lambda stage: -stage[1])
        rate = self.frames / max(self.seconds, 1e-9)
        lines = [
            f"{self.frames} frames in {self.seconds:.1f} s, {rate:.1f} frames per second",
            "share of the work: " + ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in shares),
        ]
        if self.out is not None:
            lines.insert(0, f"{self.out}" + (", up to where it was stopped" if self.interrupted else ""))
        return "\n".join(lines)


def lip_sync_recording(
    talker: Talker,
    avatar_path: Path,
    sound: Sound | None = None,
    driver_path: Path | None = None,
    out: Path | None = None,
    display: bool = False,
) -> Report:
    """The avatar speaks `sound`, or, with a driver, moves its lips as that face does while `sound` is heard.

    The result is as long as the speech or the driver and has the avatar's size and frame rate. Ctrl-C ends it early with a
    file that plays. UserError leaves nothing behind.
    """
    start = time.perf_counter()
    clip = Clip(avatar_path, "--avatar")
    heard = None if sound is None else (sound.samples, sound.sample_rate_hz)
    count = 0
    with ExitStack() as stack:
        window = stack.enter_context(Window(TITLE)) if display else None
        writer = None
        if out is not None:
            writer = VideoWriter(out, clip.width, clip.height, clip.frame_rate, heard, clip.pixel_aspect, argument="--out")
            stack.enter_context(writer)
        stop = stack.enter_context(Interrupt())
        talker.use_avatar(avatar_path)
        if driver_path is not None:
            talker.finish(_follow(talker, driver_path, stop))
        elif sound is not None:
            _speak(talker, sound.speech(), stop)
        total = ceil((talker.end_ns or 0) * clip.frame_rate / SECOND_NS)
        pace = Pace(MonotonicClock())
        frames = stack.enter_context(closing(talker.frames()))
        for frame in tqdm(frames, "lip-sync", total, unit="frame", leave=False):
            if writer is not None:
                with talker.times.stage("encode"):
                    writer.write(frame)
            count += 1
            if window is not None:
                pace.wait(frame.pts_ns, lambda: stop.requested)
                stop.requested |= not window.show(frame)
            if stop.requested:
                break
        if writer is not None:
            with talker.times.stage("encode"):
                writer.close(cut_sound=stop.requested)
    return Report(out, count, time.perf_counter() - start, dict(talker.times.seconds), stop.requested)


def _speak(talker: Talker, speech: np.ndarray, stop: Interrupt) -> None:
    """Take the lips of the speech, float32 [N] at 16 kHz."""
    for start in tqdm(range(0, len(speech), PIECE), "speech", leave=False):
        talker.push_audio(speech[start : start + PIECE])
        if stop.requested:
            break
    talker.finish()


def _follow(talker: Talker, driver_path: Path, stop: Interrupt) -> int:
    """Take the lips of every frame of the driver; gives where it ends. UserError where no face moves any."""
    end_ns, seen = 0, False
    with VideoFile(driver_path, "--driver") as driver:
        frame_ns = int(SECOND_NS / driver.frame_rate)
        for frame in tqdm(driver, "driver", driver.frames, unit="frame", leave=False):
            seen |= talker.push_face(frame)
            end_ns = frame.pts_ns + frame_ns
            if stop.requested:
                break
    if not seen and not stop.requested:
        raise UserError(f"--driver {driver_path}: no face was found in it; give a video of one that faces the camera")
    return end_ns
