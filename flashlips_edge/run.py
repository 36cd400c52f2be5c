"""The command line: python -m flashlips_edge.run --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import TextIO

import numpy as np

from flashlips_edge.arguments import Parser
from flashlips_edge.errors import UserError
from flashlips_edge.live_run import LiveReport, lip_sync_live
from flashlips_edge.media import microphone, window
from flashlips_edge.media.audio_file import RATES_HZ, SPEECH_RATE_HZ, Sound, read_pcm, read_sound
from flashlips_edge.media.camera import Camera
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.pump.clock import Clock, MonotonicClock
from flashlips_edge.recorded import Report, lip_sync_recording
from flashlips_edge.session import LipSync
from flashlips_edge.signature import open_bundle
from flashlips_edge.talking.avatar_folder import AvatarFolder
from flashlips_edge.talking.talker import Talker
from flashlips_edge.tts.voice import open_voice
from flashlips_edge.voices import PcmStream, Voice, live_face, live_voice, recorded_face, recorded_voice, text_voice

PROGRAM = "flashlips_edge.run"
STOPPED = 130  # exit status of a run that Ctrl-C ended early; the file is finished and plays
WRONG_USE = 2
CAMERA = "camera:"
DEFAULT_FOLDER = Path("out")
CAMERA_OUT = DEFAULT_FOLDER / "camera.mp4"
SPEECH = Path(__file__).parent / "assets" / "speech.flac"

EPILOG = """\
examples
  --avatar face.mp4 --audio speech.wav --out result.mp4      a recorded face speaks a recording
  --avatar face.mp4 --driver other.mp4                       ... or moves its lips as another face does
  some-tts | ... --avatar face.mp4 --audio - --sample-rate 24000
  --camera 0                                                 your face, the microphone's words
  --avatar face.mp4 --live --text "Good morning." --voice espeak:en --display

Recordings are worked through as fast as the machine can, to the end of the speech or the driver. A camera, a live driver and --live run
in real time, until what they say is over, Ctrl-C or --seconds. Ctrl-C finishes the file: exit status 130 for recordings, 0 live.
Wrong use: one sentence and exit status 2.
"""


def parser() -> argparse.ArgumentParser:
    """Every option of the command line."""
    result = Parser(
        prog=f"python -m {PROGRAM}",
        description="Lip-sync a recorded face or a camera to speech or to another face.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    face = result.add_argument_group("the face that speaks (one of)")
    face.add_argument(
        "--avatar", metavar="VIDEO|FOLDER", help="a recorded face, or a personal avatar: looped there and back if the speech is longer"
    )
    face.add_argument("--camera", metavar="INDEX|DEVICE|URL", help="a live face: 0, /dev/video0, rtsp:// or http://")
    lips = result.add_argument_group("what moves the lips (one of; a camera alone listens to the microphone)")
    lips.add_argument("--audio", metavar="FILE|-", help="speech: wav, flac, mp3, the sound of a video, or - for raw PCM on stdin")
    lips.add_argument("--text", metavar="TEXT", help="speech from a text, by --voice")
    lips.add_argument("--driver", metavar="VIDEO|camera:N", help="another face, recorded or live")
    lips.add_argument(
        "--sample-rate", type=int, metavar="HZ", help="of the PCM on stdin: signed 16 bit little-endian, mono (default 16000)"
    )
    lips.add_argument(
        "--voice", metavar="NAME:VOICE", default="espeak:en", help="speaks the text: espeak:en, piper:FILE.onnx (default: espeak:en)"
    )
    result_group = result.add_argument_group("the result")
    result_group.add_argument(
        "--out",
        type=Path,
        metavar="FILE.mp4",
        help="video with sound (default: out/<avatar>.mp4 or out/camera.mp4); a live run never writes over a file",
    )
    result_group.add_argument("--display", action="store_true", help="show it in a window")
    result_group.add_argument("--virtual-camera", nargs="?", const="", metavar="DEVICE", help="show it to other programs, on a live run")
    result_group.add_argument(
        "--loudspeaker", action="store_true", help="let it be heard, on a live run; the loudspeaker is then the clock"
    )
    result_group.add_argument(
        "--live", action="store_true", help="an avatar in real time, from the microphone if nothing else moves its lips"
    )
    result_group.add_argument("--seconds", type=float, metavar="N", help="end a live run after N seconds")
    how = result.add_argument_group("how")
    how.add_argument("--bundle", metavar="NAME|FOLDER", help="the networks (default: the personal avatar's own, else nano)")
    how.add_argument(
        "--require-signature", type=Path, metavar="KEY.pub", help="open only networks signed with this key (flashlips_edge.signature)"
    )
    how.add_argument("--detector", type=Path, metavar="FILE", help="a YuNet face detector (.onnx); else OpenCV's Haar cascade")
    how.add_argument("--threads", type=int, default=2, metavar="N", help="threads of the networks (default: 2)")
    return result


def check(options: argparse.Namespace) -> None:
    """Raises UserError for options that do not go together or are out of range."""
    if (options.avatar is None) == (options.camera is None):
        raise UserError("give either --avatar VIDEO|FOLDER or --camera INDEX|DEVICE|URL" + (", not both" if options.avatar else ""))
    given = [name for name in ("audio", "driver", "text") if getattr(options, name) is not None]
    if len(given) > 1:
        raise UserError(f"give either {' or '.join(f'--{name}' for name in given)}, not both: the lips follow one of them")
    if options.avatar is not None and not given and not options.live:
        raise UserError("--avatar needs something to speak: give --audio FILE|-, --text TEXT or --driver VIDEO|camera:N")
    for name in ("loudspeaker", "virtual_camera"):
        if getattr(options, name) not in (None, False) and not is_live(options):
            raise UserError(f"--{name.replace('_', '-')} is for a live run: give --camera or --live with it, or leave it out")
    if options.sample_rate is not None and options.audio != "-":
        raise UserError(f"--sample-rate {options.sample_rate} is for raw PCM on stdin: give --audio - with it, or leave it out")
    if options.sample_rate is not None and not RATES_HZ[0] <= options.sample_rate <= RATES_HZ[1]:
        raise UserError(f"--sample-rate {options.sample_rate} is out of range: {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
    if not 1 <= options.threads <= 256:
        raise UserError(f"--threads {options.threads} is out of range: 1 to 256")
    if options.seconds is not None and not is_live(options):
        raise UserError(f"--seconds {options.seconds:g} ends a live run: give --camera or --live with it, or leave it out")
    if options.seconds is not None and not 0 < options.seconds < float("inf"):
        raise UserError(f"--seconds {options.seconds:g} is out of range: more than 0")
    if options.text is not None and not options.text.strip():
        raise UserError(f"--text {options.text!r}: there is nothing to say in it")
    if options.out is not None and options.out.is_dir():
        raise UserError(f"--out {options.out}: this is a folder; give the name of a file, .mp4, .m4v or .mov")
    if options.out is not None and (reader := _reader(options, options.out)) is not None:
        raise UserError(f"--out {options.out} is what --{reader} reads: give another place")
    if options.display and (missing := window.why_none()) is not None:
        raise UserError(f"--display: {missing}")
    if _driver_camera(options) == "":
        raise UserError(f"--driver {options.driver} names no camera: give camera:0, camera:/dev/video0 or camera:URL")


def is_live(options: argparse.Namespace) -> bool:
    """Whether it runs in real time."""
    return options.live or options.camera is not None or _driver_camera(options) is not None


def run(options: argparse.Namespace) -> Report | LiveReport:
    """What the checked options ask for. UserError names what is wrong with a file, a camera or a place."""
    options.notes = []  # said when all that was asked for is open
    options.out = _out(options)
    return _run_live(options) if is_live(options) else _run_recording(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 for wrong use, 130 where Ctrl-C ended a run on recordings early."""
    try:
        options = parser().parse_args(arguments)
        check(options)
        report = run(options)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped; no unfinished file is left", file=sys.stderr)
        return STOPPED
    print(report)
    return STOPPED if report.interrupted else 0


def _run_recording(options: argparse.Namespace) -> Report:
    personal = AvatarFolder.open(options.avatar)
    video = Path(options.avatar) if personal is None else personal.video
    bundle = options.bundle or (personal.bundle if personal is not None else None) or "nano"
    sound = driver = None
    if options.driver is not None:
        driver = Path(options.driver)
        with VideoFile(driver, "--driver") as recorded:
            sound = read_sound(driver, "--driver") if recorded.has_audio else None
    elif options.text is not None:
        sound = _spoken(options)
    elif options.audio == "-":
        sound = read_pcm(_standard_input().buffer, options.sample_rate or SPEECH_RATE_HZ)
    else:
        sound = read_sound(options.audio, "--audio", alone=True)
    with Talker(open_bundle(bundle, options.require_signature), options.threads, options.detector) as talker:
        report = lip_sync_recording(talker, video, sound, driver, options.out, options.display)
        if not talker.knows_face:
            _say(f"--avatar {options.avatar}: no face was found in it; its frames were passed on unchanged")
        return report


def _standard_input() -> TextIO:
    if sys.stdin is None:
        raise UserError("--audio -: standard input is closed; give raw PCM, s16le, mono")
    return sys.stdin


def _spoken(options: argparse.Namespace) -> Sound:
    """The text as sound."""
    pieces = list(open_voice(options.voice).say(options.text))
    if not pieces:
        raise UserError(f"--text {options.text!r}: {options.voice} finds nothing to say in it")
    return Sound(np.concatenate([pcm for pcm, _ in pieces]).astype(np.float32)[:, None] / 32768, pieces[0][1])


def _run_live(options: argparse.Namespace) -> LiveReport:
    clock = MonotonicClock()
    with ExitStack() as stack:
        voice = stack.enter_context(closing(_voice(options, clock)))
        face = LipSync.open(
            options.bundle,
            avatar=options.avatar,
            camera=options.camera,
            loudspeaker=options.loudspeaker,
            require_signature=options.require_signature,
            threads=options.threads,
            detector=options.detector,
            clock=clock,
        )
        stack.enter_context(face)
        for note in options.notes:
            _say(note)
        return lip_sync_live(face, voice, options.out, options.display, options.virtual_camera, options.seconds)


def _voice(options: argparse.Namespace, clock: Clock) -> Voice:
    if (source := _driver_camera(options)) is not None:
        return live_face(Camera(source, clock, "--driver"))
    if options.driver is not None:
        video = VideoFile(Path(options.driver), "--driver")
        return recorded_face(video, read_sound(options.driver, "--driver") if video.has_audio else None, clock)
    if options.text is not None:
        return text_voice(open_voice(options.voice), options.text, clock)
    if options.audio == "-":
        return live_voice(PcmStream(_standard_input().fileno(), options.sample_rate or SPEECH_RATE_HZ, clock), clock)
    if options.audio is not None:
        return recorded_voice(read_sound(options.audio, "--audio", alone=True), clock)
    found = microphone.find(clock)
    if found is not None:
        options.notes.append("lips from the microphone")
        return live_voice(found, clock)
    options.notes.append(f"lips from the bundled speech, over and over: {microphone.why_none()}")
    return recorded_voice(read_sound(SPEECH), clock, repeat=True)


def _out(options: argparse.Namespace) -> Path | None:
    """Where the result goes; what runs in real time is shown, if there is a display."""
    if options.out is not None or options.display or options.virtual_camera is not None:
        return options.out
    if not is_live(options) or options.driver is not None:
        out = DEFAULT_FOLDER / f"{Path(options.avatar or CAMERA_OUT).resolve().stem}.mp4"
        return _free(out) if out.is_dir() or _reader(options, out) is not None else out
    if window.why_none() is None:
        options.display = True
        return None
    out = _free(CAMERA_OUT if options.camera is not None else DEFAULT_FOLDER / f"{Path(options.avatar).resolve().stem}.mp4")
    options.notes.append(f"written to {out} until Ctrl-C: {window.why_none()}")
    return out


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that is not there: a recording is never written over."""
    numbers = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return path if not path.exists() else next(other for other in numbers if not other.exists())


def _reader(options: argparse.Namespace, out: Path) -> str | None:
    """The name of the option that reads the file `out`, or all of its folder; None if none does."""
    for name in ("avatar", "audio", "driver", "camera"):
        source = getattr(options, name)
        if source is not None and out.exists() and Path(source).exists() and (out.samefile(source) or out.parent.samefile(source)):
            return name
    return None


def _driver_camera(options: argparse.Namespace) -> str | None:
    driver = options.driver or ""
    return driver[len(CAMERA) :] if driver.startswith(CAMERA) else None


def _say(sentence: str) -> None:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
