"""python -m flashlips_edge.demo: the bundled avatar speaks the bundled speech, into out/demo.mp4 and a contact sheet of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np

from flashlips_edge.arguments import Parser
from flashlips_edge.contact_sheet import Column, contact_sheet
from flashlips_edge.errors import UserError
from flashlips_edge.face.crop import rectangle
from flashlips_edge.files import write_bytes
from flashlips_edge.media.audio_file import SPEECH_RATE_HZ, read_sound
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.pump.clock import SECOND_NS
from flashlips_edge.recorded import Report, lip_sync_recording
from flashlips_edge.run import STOPPED, WRONG_USE
from flashlips_edge.talking.talker import Talker
from flashlips_edge.talking.target import Target

ASSETS = Path(__file__).parent / "assets"
AVATAR, SPEECH = ASSETS / "avatar.mp4", ASSETS / "speech.flac"
VIDEO, SHEET = Path("out/demo.mp4"), Path("out/demo.png")
TITLE = "FlashLips Edge: the bundled avatar speaks the bundled speech"
COLUMNS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes both files, prints what was made and how fast; gives the exit status."""
    try:
        Parser(prog="python -m flashlips_edge.demo", description=f"{TITLE}, into {VIDEO} and {SHEET}.").parse_args(arguments)
        speech = read_sound(SPEECH)
        with Talker.open("nano") as talker:
            report = lip_sync_recording(talker, AVATAR, speech, out=VIDEO)
            columns = _columns(talker, report.frames)
        sheet = contact_sheet(columns, speech.speech(), SPEECH_RATE_HZ, TITLE, _speed(report))
        write_bytes(SHEET, cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes())
    except UserError as error:
        print(f"flashlips_edge.demo: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        return STOPPED
    print(_speed(report))
    for name, seconds in report.stages.items():
        print(f"  {name:<9}{seconds:7.2f} s {1000 * seconds / report.frames:7.1f} ms a frame")
    print(f"video          {VIDEO.resolve()}\ncontact sheet  {SHEET.resolve()}")
    return STOPPED if report.interrupted else 0


def _speed(report: Report) -> str:
    return f"{report.frames} frames in {report.seconds:.1f} s, {report.frames / report.seconds:.1f} frames per second"


def _columns(talker: Talker, frames: int) -> list[Column]:
    """Moments all along the speech, by turns with the mouth at its most open and its most closed."""
    assert talker.avatar is not None
    rate = talker.avatar.frame_rate
    opening = [_opening(talker, round(i * SECOND_NS / rate)) for i in range(frames)]
    edges = np.linspace(0, frames, min(COLUMNS, frames) + 1).astype(int)
    picks = [int(start + (np.argmin if i % 2 else np.argmax)(opening[start:end])) for i, (start, end) in enumerate(pairwise(edges))]
    columns = []
    with VideoFile(VIDEO) as video:
        results = islice(video, frames)
        for i, (target, result) in enumerate(zip(talker.avatar.targets(), results)):
            if i in picks:
                time_s = result.pts_ns / SECOND_NS
                columns.append(Column(time_s, target.frame.image, result.image, _mouth(target)))
    return columns


def _opening(talker: Talker, pts_ns: int) -> float:
    lips = talker.lips.at(pts_ns)
    return 0.0 if lips is None else float(lips @ talker.networks.bundle.lips_opening)


def _mouth(target: Target) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what may change, in the frame."""
    if target.crop is None:
        return None
    assert target.surroundings is not None
    left, top, right, bottom = rectangle(target.surroundings.shape, target.crop)
    return left + target.left, top + target.top, right + target.left, bottom + target.top


if __name__ == "__main__":
    sys.exit(main())
