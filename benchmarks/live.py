"""The live session against its marks: sound and picture together, latency, interruptions, frame rate. On this machine, in real time.

    python -m benchmarks.live --minutes 10 --out benchmarks/live.json

A 720p avatar is prepared from the bundled one. Its sentences come in pieces of 20 ms, as they are said, from a source whose clock is
1 % fast; in between there is silence. Four times a minute the sentence is interrupted. Twice a minute the process is stopped altogether
for 60 ms, and, at another time, two others take a second's work from its cores. The mouth is judged by the lips encoder on the frames
that came out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from flashlips_edge import prepare
from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.face.detect import HaarDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.files import check_place, write_bytes
from flashlips_edge.media.audio_file import read_sound
from flashlips_edge.media.frames import Frame
from flashlips_edge.media.letterbox import letterbox
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter
from flashlips_edge.pump.clock import SECOND_NS
from flashlips_edge.session import LipSync
from flashlips_edge.talking.target import Target

ASSETS = Path(prepare.__file__).parent / "assets"
WIDTH, HEIGHT = 1280, 720
PIECE_S = 0.02
SOURCE_PACE = 1.01
SENTENCE_S, PAUSE_S = 6.0, 2.0
INTERRUPT_EVERY_S, STALL_EVERY_S, STALL_S, RIVALS_S = 15.0, 15.0, 0.06, 1.0
LEAST_MINUTES = 0.5  # an interruption must fall into it
LOOK_S = 20.0  # between two looks at the statistics: less than what their windows hold
WATCH_NS = SECOND_NS  # frames kept after an interruption
SILENT = 0.003
MARKS = {
    "offset_ms_p99": ("most", 40),
    "first_frame_ms": ("most", 300),
    "latency_ms_p50": ("most", 250),
    "silent_after_ms": ("most", 50),
    "closed_after_ms": ("most", 200),
    "frame_gap_ms_max": ("most", 120),
    "frames_per_second": ("least", 24.9),
}


class Witness:
    """A sink that keeps what is seen and heard after an interruption."""

    def __init__(self) -> None:
        self.interrupted: list[int] = []  # media time
        self.frames: list[list[tuple[int, Frame]]] = []  # by interruption: media time and frame
        self.quiet: list[Frame] = []  # long after the last sound: the mouth at rest
        self.heard_until: list[int] = []  # by interruption, media time of the last sound
        self.cut = threading.Event()  # the sentence under way is not to be gone on with
        self.turn = threading.Lock()
        self._loud_ns = 0

    def note(self, media_ns: int) -> None:
        self.frames.append([])
        self.heard_until.append(media_ns)
        self.interrupted.append(media_ns)

    def write(self, frame: Frame) -> None:
        if self.interrupted and frame.pts_ns < self.interrupted[-1] + WATCH_NS:
            self.frames[-1].append((frame.pts_ns, frame))
        elif frame.pts_ns > self._loud_ns + 2 * SECOND_NS // 3 and len(self.quiet) < 200:
            self.quiet.append(frame)

    def write_audio(self, samples: np.ndarray, pts_ns: int) -> None:
        loud = np.flatnonzero(np.abs(samples) > SILENT)
        if not len(loud):
            return
        self._loud_ns = pts_ns + int(loud[-1]) * SECOND_NS // 48_000
        if self.interrupted and self.interrupted[-1] < self._loud_ns < self.interrupted[-1] + SECOND_NS // 2:
            self.heard_until[-1] = self._loud_ns

    def close(self) -> None: ...


def main() -> None:
    parser = Parser(prog="python -m benchmarks.live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/live.json"))
    options = parser.parse_args()
    if not LEAST_MINUTES <= options.minutes < math.inf:
        raise UserError(f"--minutes {options.minutes:g} is out of range: {LEAST_MINUTES:g} or more")
    if not 1 <= options.threads <= 256:
        raise UserError(f"--threads {options.threads} is out of range: 1 to 256")
    check_place(options.out, "--out")
    bundle = Bundle.open(options.bundle)
    with tempfile.TemporaryDirectory() as temporary:
        avatar = Path(temporary) / "avatar"
        print(prepare.prepare(_wide(Path(temporary)), {}, avatar, "a drawing, nobody's face", options.bundle))
        LipSync.open(options.bundle, avatar=avatar, threads=options.threads).close()  # warm: the networks stay loaded
        figures = run(avatar, options)
    from flashlips_edge.evaluation.report import circumstances  # torch, which must not share the cores with what was measured

    result = {"figures": figures, "marks": {name: mark for name, (_, mark) in MARKS.items()}}
    result["circumstances"] = circumstances(bundle, options.minutes * 60, {})
    write_bytes(options.out, json.dumps(result, indent=2).encode() + b"\n")
    for name, value in figures.items():
        kind, mark = MARKS.get(name, ("", None))
        print(f"{name:28} {value:10.2f}" + (f"   {kind} {mark}" if mark is not None else ""))


def run(avatar: Path, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one session of that many minutes."""
    sound = read_sound(ASSETS / "speech.flac")
    witness, stop = Witness(), threading.Event()
    with LipSync.open(options.bundle, avatar=avatar, threads=options.threads) as face:
        opened, used = time.monotonic(), time.process_time()
        face.add_sink("witness", witness)
        looks: list[dict[str, float]] = []
        threads = [
            threading.Thread(target=_speak, args=(face, sound.samples[:, 0], sound.sample_rate_hz, witness, stop)),
            threading.Thread(target=_interrupt, args=(face, witness, stop)),
            threading.Thread(target=_stall, args=(stop,)),
        ]
        for thread in threads:
            thread.start()
        end = opened + options.minutes * 60
        while time.monotonic() < end:
            stop.wait(min(LOOK_S, max(0.0, end - time.monotonic())))
            looks.append(face.stats().gauges)
            print(f"{time.monotonic() - opened:6.0f} s", {name: round(value, 1) for name, value in looks[-1].items()}, file=sys.stderr)
        stats, elapsed, busy = face.stats(), time.monotonic() - opened, time.process_time() - used
        stop.set()
        for thread in threads:
            thread.join()
        show = stats.counters["show"]
        silent = [(heard - media) / 1e6 for media, heard in zip(witness.interrupted, witness.heard_until)]
        closed = closed_after_ms(face, witness)
    looks = looks[1:] or looks
    return {
        "minutes": elapsed / 60,
        "offset_ms_p50": float(np.median([look["offset_ms_p50"] for look in looks])),
        "offset_ms_p99": max(look["offset_ms_p99"] for look in looks),
        "first_frame_ms": stats.gauges["first_frame_ms"],
        "latency_ms_p50": float(np.median([look["latency_ms_p50"] for look in looks])),
        "latency_ms_p95": max(look["latency_ms_p95"] for look in looks),
        "interruptions": float(len(silent)),
        "silent_after_ms": max(silent),
        "closed_after_ms": float(np.percentile(closed, 95)),
        "closed_after_ms_max": max(closed),
        "frame_gap_ms_max": max(look["frame_gap_ms_max"] for look in looks),
        "frames_per_second": show.left / elapsed,
        "repeated_share": show.repeated / max(1, show.left),
        "picture_ms_p50": float(np.median([look["picture_ms_p50"] for look in looks])),
        "picture_ms_p95": max(look["picture_ms_p95"] for look in looks),
        "stepped_down": stats.gauges["level_down_total"],
        "restarts": float(sum(stats.restarts.values())),
        "cores_busy": busy / elapsed,
    }


def closed_after_ms(face: LipSync, witness: Witness) -> list[float]:
    """By interruption: from it to the first frame from which on the mouth is as closed as in the avatar's silence."""
    opening = face.networks.bundle.lips_opening

    def openings(frames: list[Frame]) -> np.ndarray:
        tracker, crops = FaceTracker(HaarDetector()), []
        for number, frame in enumerate(frames):
            crop = Target.of(frame, tracker.update(frame.luma, number * SECOND_NS // 25), face.networks.crop_size).crop
            crops.append(np.zeros((face.networks.crop_size,) * 2 + (3,), np.uint8) if crop is None else crop.image)
        return np.concatenate([face.networks.lips(crop[None]) @ opening for crop in crops])

    rest = openings(witness.quiet)
    limit = rest.mean() + 4 * rest.std()
    result = []
    for media_ns, seen in zip(witness.interrupted, witness.frames):
        open_at = [
            pts_ns for (pts_ns, _), value in zip(seen, openings([frame for _, frame in seen])) if value > limit and pts_ns > media_ns
        ]
        later = [pts_ns for pts_ns, _ in seen if not open_at or pts_ns > open_at[-1]]
        result.append((min(later, default=media_ns + WATCH_NS) - media_ns) / 1e6 if open_at else 0.0)
    return result


def _speak(face: LipSync, samples: np.ndarray, rate_hz: int, witness: Witness, stop: threading.Event) -> None:
    """Sentences as they are said, by a clock that is 1 % fast, and silence between them."""
    start, said, piece = time.monotonic(), 0.0, int(PIECE_S * rate_hz)
    while not stop.is_set():
        offset = 0
        witness.cut.clear()
        while said % (SENTENCE_S + PAUSE_S) < SENTENCE_S and not stop.is_set():
            with witness.turn:
                if witness.cut.is_set():
                    break
                face.push_audio(np.take(samples, range(offset, offset + piece), mode="wrap"), rate_hz)
            offset, said = offset + piece, said + PIECE_S
            stop.wait(max(0.0, start + said / SOURCE_PACE - time.monotonic()))
        face.say_silence()
        said = (said // (SENTENCE_S + PAUSE_S) + 1) * (SENTENCE_S + PAUSE_S)
        stop.wait(max(0.0, start + said / SOURCE_PACE - time.monotonic()))


def _interrupt(face: LipSync, witness: Witness, stop: threading.Event) -> None:
    while not stop.wait(INTERRUPT_EVERY_S):
        while not face.stats().speaking and not stop.wait(0.05):
            pass
        if stop.wait(1.0):
            return
        with witness.turn:
            witness.cut.set()
            witness.note(face.stats().media_ns)
            face.interrupt()


def _stall(stop: threading.Event) -> None:
    """In turns: stop this process, which another one wakes; and let two others compute."""
    while not stop.wait(STALL_EVERY_S):
        subprocess.Popen(["sh", "-c", f"sleep {STALL_S}; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)
        if stop.wait(STALL_EVERY_S):
            return
        rival = f"import time; end = time.process_time() + {RIVALS_S}\nwhile time.process_time() < end: pass"
        rivals = [subprocess.Popen([sys.executable, "-c", rival]) for _ in range(2)]
        for process in rivals:
            process.wait()


def _wide(folder: Path) -> Path:
    """The bundled avatar as a 720p video."""
    path = folder / "wide.mp4"
    with VideoFile(ASSETS / "avatar.mp4") as video, VideoWriter(path, WIDTH, HEIGHT, Fraction(video.frame_rate)) as writer:
        for frame in video:
            writer.write(letterbox(frame, WIDTH, HEIGHT))
    return path


if __name__ == "__main__":
    with one_sentence("benchmarks.live"):
        main()
