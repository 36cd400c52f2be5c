"""python -m flashlips_edge.soak: a face that speaks for hours or days on this machine, and whether anything grows, drifts or gets lost.

A whole session runs as it would in a kiosk: sentences with pauses, now and then an interruption, frames looked at, a recording in
segments. Memory, threads, handles and the session's own measurements are sampled all the while. Over the second half of the run, when
everything has long been loaded, they must be level: that is judged by the median of the slopes between all pairs of samples, which a few
outliers do not move. Exit status: 0 if the run is sound, 1 if not, 2 for wrong use.

`--plant` lets something leak on purpose, with every sample: the check of this check.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import os
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from flashlips_edge.arguments import Parser
from flashlips_edge.errors import UserError
from flashlips_edge.files import check_place, write_bytes
from flashlips_edge.interrupt import Interrupt
from flashlips_edge.media.audio_file import read_sound
from flashlips_edge.media.recorder import Recorder
from flashlips_edge.pump.clock import SECOND_NS, Clock, MonotonicClock
from flashlips_edge.session import LipSync

PROGRAM = "flashlips_edge.soak"
WRONG_USE = 2
ASSETS = Path(__file__).parent / "assets"
MEMORY, THREADS, HANDLES = (Path("/proc/self") / name for name in ("statm", "task", "fd"))
SAMPLES = 240  # of a run at least, ...
EVERY_S = 60.0  # ... and one a minute
SEGMENTS, SEGMENT_S = 20, (2.0, 600.0)  # recordings in a run at most, unless they get longer than ten minutes
LEAST = 8  # samples that can be judged
PAIRED = 600  # samples whose pairs are looked at
SENTENCE_S, PAUSE_S = (1.0, 6.0), (0.3, 4.0)
INTERRUPTED = 0.2  # of the sentences
SILENCED_NS = SECOND_NS // 20  # sound that may still wait when an interruption has returned
LOOK_S = 0.05
PLANTED_BYTES = 4 << 20

# What may change over the second half of a run, and what must not happen in it.
LIMITS = {
    "memory_rise_mb": 16.0,  # an encoder is made anew for each segment, and what is free is not always given back at once
    "threads_rise": 0.5,
    "handles_rise": 0.5,
    "drift_ms": 10.0,  # of media time against the clock
    "offset_rise_ms": 40.0,  # of the pictures against the sound; a machine that gets busier shows its pictures later, too
    "epochs_lost": 0.0,  # interruptions that were not counted, or left sound behind
    "stalls": 0.0,  # samples two seconds after the last frame, or later
}
STALL_MS = 2000.0


@dataclass(frozen=True)
class Sample:
    """The process and its session at one time. Totals are counted from the start, other measurements are of the last seconds."""

    at_s: float
    memory_mb: float
    threads: int
    handles: int
    drift_ms: float  # of media time against the clock
    offset_ms_p50: float
    offset_ms_p99: float
    latency_ms_p50: float
    frame_gap_ms_max: float
    since_frame_ms: float
    sound_queued_ms: float
    level: int
    frames: int
    repeated: int
    dropped: int
    restarts: int

    @staticmethod
    def take(session: LipSync, clock: Clock, start_ns: int) -> Sample:
        stats, now_ns = session.stats(), clock.now_ns()
        show, gauges = stats.counters["show"], stats.gauges
        return Sample(
            at_s=round((now_ns - start_ns) / SECOND_NS, 3),
            memory_mb=round(int(MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
            threads=len(os.listdir(THREADS)),
            handles=len(os.listdir(HANDLES)),
            drift_ms=round((stats.media_ns - now_ns) / 1e6, 2),
            **{name: round(gauges[name], 2) for name in GAUGES},
            level=stats.level,
            frames=show.left,
            repeated=show.repeated,
            dropped=sum(counted.dropped for counted in stats.counters.values()),
            restarts=sum(stats.restarts.values()),
        )

    def __str__(self) -> str:
        process = f"{self.memory_mb:7.1f} MB  {self.threads:3} threads  {self.handles:4} handles"
        shown = f"{self.frames} frames, {self.repeated} repeated  level {self.level}  restarts {self.restarts}"
        return f"{self.at_s:9.0f} s  {process}  offset {self.offset_ms_p99:5.1f} ms  gap {self.frame_gap_ms_max:5.0f} ms  {shown}"


GAUGES = ("offset_ms_p50", "offset_ms_p99", "latency_ms_p50", "frame_gap_ms_max", "since_frame_ms", "sound_queued_ms")


class Day:
    """What happens to a face in a day. `poll` does what is due; `problems` are those that were ever named."""

    def __init__(self, session: LipSync, clock: Clock, folder: Path, segment_s: float):
        self.sentences = self.interruptions = self.segments = 0
        self.epochs_lost = 0
        self.problems: list[str] = []
        self._session, self._clock, self._folder = session, clock, folder
        self._segment_ns = int(segment_s * SECOND_NS)
        self._random = random.Random(0)
        sound = read_sound(ASSETS / "speech.flac")
        self._speech, self._rate_hz = sound.samples[:, 0], sound.sample_rate_hz
        self._speak_ns = self._record_ns = clock.now_ns()
        self._cut_ns: int | None = None  # when the sentence under way is interrupted
        self._path: Path | None = None

    def poll(self) -> None:
        now_ns = self._clock.now_ns()
        if self._cut_ns is not None and now_ns >= self._cut_ns:
            self._interrupt()
            self._cut_ns = None
        if now_ns >= self._speak_ns:
            self._say()
        if now_ns >= self._record_ns:
            self._record_ns = now_ns + self._segment_ns
            self.end_segment()
            self._path = self._folder / f"{self.segments}.mp4"
            self._session.add_sink("segment", Recorder(self._path, self._session.frame_rate))
        for source, problem in self._session.stats().problems.items():
            if (named := f"{source}: {problem}") not in self.problems and len(self.problems) < SAMPLES:
                self.problems.append(named)

    def end_segment(self) -> None:
        """Finish the recording under way; it is deleted."""
        if self._path is not None:
            self._session.remove_sink("segment")
            self._path.unlink(missing_ok=True)
            self._path = None
            self.segments += 1

    def _say(self) -> None:
        seconds = self._random.uniform(*SENTENCE_S)
        first = self._random.randrange(max(1, len(self._speech) - int(seconds * self._rate_hz)))
        self._session.push_audio(self._speech[first : first + int(seconds * self._rate_hz)], self._rate_hz)
        self._session.say_silence()
        self.sentences += 1
        now_ns = self._clock.now_ns()
        self._speak_ns = now_ns + int((seconds + self._random.uniform(*PAUSE_S)) * SECOND_NS)
        if self._random.random() < INTERRUPTED:
            self._cut_ns = now_ns + int(self._random.uniform(0, seconds) * SECOND_NS)

    def _interrupt(self) -> None:
        self.interruptions += 1
        self._session.interrupt()
        waits_ns = self._session.stats().gauges["sound_queued_ms"] * 1e6
        self.epochs_lost += waits_ns > SILENCED_NS or self._session.epoch != self.interruptions


def soak(session: LipSync, clock: Clock, seconds: float, every_s: float, leak: Callable[[], None], stop: Callable[[], bool]) -> dict:
    """Let a session live for so long; gives the report. `leak` is called with every sample, `stop` ends it early."""
    start_ns, samples, pause = clock.now_ns(), list[Sample](), threading.Event()
    with tempfile.TemporaryDirectory(prefix="flashlips-edge.") as folder:
        day = Day(session, clock, Path(folder), min(max(seconds / SEGMENTS, SEGMENT_S[0]), SEGMENT_S[1]))
        while not stop() and (elapsed_s := (clock.now_ns() - start_ns) / SECOND_NS) < seconds:
            day.poll()
            if elapsed_s >= len(samples) * every_s:
                leak()
                samples.append(Sample.take(session, clock, start_ns))
                print(samples[-1], file=sys.stderr, flush=True)
            pause.wait(LOOK_S)
        day.end_segment()
    found = judge(samples, day.epochs_lost)
    return {
        "sound": bool(found) and all(found[name] <= limit for name, limit in LIMITS.items()),
        "hours": (clock.now_ns() - start_ns) / SECOND_NS / 3600,
        "whole": not stop(),
        "found": found,
        "limits": LIMITS,
        "sentences": day.sentences,
        "interruptions": day.interruptions,
        "segments": day.segments,
        "problems": day.problems,
        "samples": [asdict(sample) for sample in samples],
    }


def judge(samples: Sequence[Sample], epochs_lost: int) -> dict[str, float]:
    """What LIMITS are for: over the second half of the run, rises by the median slope; nothing of too few samples."""
    if len(samples) < LEAST:
        return {}
    half = samples[len(samples) // 2 :]
    times = [sample.at_s for sample in half]

    def rise(name: str) -> float:
        return round(slope(times, [getattr(sample, name) for sample in half]) * (times[-1] - times[0]), 3)

    return {
        "memory_rise_mb": rise("memory_mb"),
        "threads_rise": rise("threads"),
        "handles_rise": rise("handles"),
        "drift_ms": abs(rise("drift_ms")),
        "offset_rise_ms": rise("offset_ms_p50"),
        "epochs_lost": float(epochs_lost),
        "stalls": float(sum(sample.since_frame_ms > STALL_MS for sample in half)),
    }


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs, thinned to PAIRED points."""
    step = -(-len(times) // PAIRED)
    x, y = np.asarray(times[::step]), np.asarray(values[::step], float)
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))


class Plants:
    """Leaks that are meant: 4 MB, a thread or a handle, each time one is called. `end` gives all of it back."""

    def __init__(self) -> None:
        self._blocks: list[mmap.mmap] = []
        self._handles: list[int] = []
        self._over = threading.Event()

    def memory(self) -> None:
        block = mmap.mmap(-1, PLANTED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # the heap might have it to spare
        np.frombuffer(block, np.uint8)[:] = 1
        self._blocks.append(block)

    def thread(self) -> None:
        threading.Thread(target=self._over.wait, name="planted", daemon=True).start()

    def handle(self) -> None:
        self._handles.append(os.open(os.devnull, os.O_RDONLY))

    def nothing(self) -> None: ...

    def end(self) -> None:
        self._over.set()
        self._blocks.clear()
        while self._handles:
            os.close(self._handles.pop())


def parser() -> argparse.ArgumentParser:
    """Every option of the command line."""
    result = Parser(
        prog=f"python -m {PROGRAM}",
        description="Let a face speak for hours, and tell whether memory, threads, handles and clocks stay where they are.",
        epilog="Ctrl-C ends it with the report so far. Exit status: 0 sound, 1 not, 2 for wrong use.",
        allow_abbrev=False,
    )
    result.add_argument("--hours", type=float, default=72.0, metavar="H", help="how long (default: 72)")
    result.add_argument("--avatar", metavar="VIDEO|FOLDER", help="a recorded face (default: the one that comes with the package)")
    result.add_argument("--camera", metavar="INDEX|DEVICE|URL", help="or a live face")
    result.add_argument("--bundle", metavar="NAME|FOLDER", help="the networks (default: the personal avatar's own, else nano)")
    result.add_argument(
        "--require-signature", type=Path, metavar="KEY.pub", help="open only networks signed with this key (flashlips_edge.signature)"
    )
    result.add_argument("--threads", type=int, default=2, metavar="N", help="threads of the networks (default: 2)")
    result.add_argument("--report", type=Path, metavar="FILE.json", help="where the samples and the verdict are written")
    result.add_argument("--plant", choices=("memory", "thread", "handle"), help="leak this on purpose: the run must be found unsound")
    return result


def check(options: argparse.Namespace) -> None:
    """Raises UserError for options that do not go together or are out of range."""
    if options.avatar is not None and options.camera is not None:
        raise UserError("give either --avatar VIDEO|FOLDER or --camera INDEX|DEVICE|URL, not both")
    if not 0 < options.hours < math.inf:
        raise UserError(f"--hours {options.hours:g} is out of range: more than 0")
    if not 1 <= options.threads <= 256:
        raise UserError(f"--threads {options.threads} is out of range: 1 to 256")
    if options.report is not None:
        check_place(options.report, "--report")
    if not MEMORY.exists():
        raise UserError(f"--hours {options.hours:g} cannot be watched here: {MEMORY} is missing, which Linux has")


def run(options: argparse.Namespace) -> dict:
    """The report of a run with the checked options."""
    avatar = options.avatar if options.avatar is not None or options.camera is not None else ASSETS / "avatar.mp4"
    clock, plants, seconds = MonotonicClock(), Plants(), options.hours * 3600
    with Interrupt() as stop:
        session = LipSync.open(
            options.bundle,
            avatar=avatar,
            camera=options.camera,
            require_signature=options.require_signature,
            threads=options.threads,
            clock=clock,
            on_frame=lambda frame: None,
        )
        with session:
            leak = getattr(plants, options.plant or "nothing")
            try:
                report = soak(session, clock, seconds, min(EVERY_S, seconds / SAMPLES), leak, lambda: stop.requested)
            finally:
                plants.end()
    return report


def summary(report: dict) -> str:
    """One line: the verdict and what it is made of."""
    if not report["found"]:
        return f"too short to judge: {len(report['samples'])} samples, {LEAST} are needed"
    names = [f"{name} {value:g}{'' if value <= LIMITS[name] else f' (limit {LIMITS[name]:g})'}" for name, value in report["found"].items()]
    return f"{'sound' if report['sound'] else 'NOT SOUND'} over {report['hours']:.2f} h: {', '.join(names)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 for a sound run, 1 for another or one too short to judge, 2 for wrong use."""
    try:
        options = parser().parse_args(arguments)
        check(options)
        report = run(options)
        print(summary(report), flush=True)  # first: days may have gone by until a disk is full
        if options.report is not None:
            write_bytes(options.report, json.dumps(report, indent=2).encode() + b"\n")
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        return 1
    return 0 if report["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
