"""A live run: a camera, or an avatar driven by one; a file, a window, or both, as the result, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from flashlips_edge.interrupt import Interrupt
from flashlips_edge.media.camera import Camera
from flashlips_edge.media.video_writer import VideoWriter
from flashlips_edge.media.window import Window
from flashlips_edge.pump.clock import SECOND_NS, Clock
from flashlips_edge.pump.counters import Counters
from flashlips_edge.pump.pacing import Pace
from flashlips_edge.recorded import TITLE, Report
from flashlips_edge.talking.avatar import Avatar
from flashlips_edge.talking.talker import Talker
from flashlips_edge.talking.target import Target
from flashlips_edge.voices import Voice


def lip_sync_live(
    talker: Talker,
    camera: Camera | None,
    voice: Voice,
    clock: Clock,
    out: Path | None = None,
    display: bool = False,
    seconds: float | None = None,
) -> Report:
    """The camera's face, or without a camera the talker's avatar at its own pace, with the lips of `voice`.

    Ends with Ctrl-C, the window, the camera, the voice or after `seconds`, always with a file that plays. Frames that came
    while another was worked on are dropped and counted. Camera and voice are on `clock`. UserError leaves nothing behind.
    """
    start = time.perf_counter()
    count, first_ns = 0, 0
    avatar = talker.avatar
    with ExitStack() as stack:
        if camera is not None:
            width, height, frame_rate, counters = camera.width, camera.height, camera.frame_rate, camera.counters
        else:
            assert avatar is not None
            width, height, frame_rate, counters = avatar.clip.width, avatar.clip.height, avatar.frame_rate, Counters()
        window = stack.enter_context(Window(TITLE)) if display else None
        writer = None
        if out is not None:
            heard = None if voice.silence is None else (voice.silence.samples, voice.silence.sample_rate_hz)
            writer = stack.enter_context(VideoWriter(out, width, height, frame_rate, heard, argument="--out"))
        stop = stack.enter_context(Interrupt())
        bar = stack.enter_context(tqdm(desc="live", unit="frame"))
        for target in _paced(avatar, clock, counters) if avatar is not None else map(talker.track, camera or ()):
            pts_ns = target.frame.pts_ns
            if count == 0:
                first_ns = pts_ns
            over = seconds is not None and pts_ns - first_ns >= seconds * SECOND_NS
            if stop.requested or over or not voice.advance(talker, writer, pts_ns):
                break
            frame = talker.speak(target)
            if writer is not None:
                with talker.times.stage("encode"):
                    writer.write(frame, pts_ns - first_ns)
            count += 1
            bar.set_postfix_str(str(counters), refresh=False)
            bar.update()
            if window is not None and not window.show(frame):
                break
        if writer is not None:
            writer.close(cut_sound=True)
    return Report(out, count, time.perf_counter() - start, dict(talker.times.seconds))


def _paced(avatar: Avatar, clock: Clock, counters: Counters) -> Iterator[Target]:
    """The avatar's pictures when they are due, on the clock; those that are due no more are dropped."""
    pace, start_ns = Pace(clock), clock.now_ns()
    frame_ns = int(SECOND_NS / avatar.frame_rate)
    for target in avatar.targets():
        pts_ns = target.frame.pts_ns
        counters.entered += 1
        if pace.late_ns(pts_ns) > frame_ns:
            counters.dropped += 1
            continue
        pace.wait(pts_ns)
        counters.left += 1
        yield replace(target, frame=target.frame.at(start_ns + pts_ns))
