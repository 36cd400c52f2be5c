"""Prepare an avatar once, so that a live session opens it in well under a second: python -m flashlips_edge.prepare --help.

python -m flashlips_edge.prepare idle.mp4 --clip nod=nod.mp4 --out avatars/lobby --consent "Ada, for our lobby, 2026"
python -m flashlips_edge.prepare avatars/ada --out avatars/ada-live        # a personal avatar: with its own networks
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from flashlips_edge.arguments import Parser
from flashlips_edge.errors import UserError
from flashlips_edge.face.detect import Detector, HaarDetector, YuNetDetector
from flashlips_edge.folders import beside
from flashlips_edge.interrupt import end_on_sigterm
from flashlips_edge.media.clip import Clip
from flashlips_edge.media.loop_video import GROUP
from flashlips_edge.signature import open_bundle
from flashlips_edge.talking import prepared
from flashlips_edge.talking.avatar_folder import BUNDLE, CLIP_NAME, IDLE, AvatarFolder, write_record
from flashlips_edge.talking.identity import evenly
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.prepared import IDENTITY, PreparedClip

PROGRAM = "flashlips_edge.prepare"
STOPPED, WRONG_USE = 130, 2
IDLE_VIDEO = "IDLE_VIDEO"
TAKEN = (IDLE, Path(IDENTITY).stem)  # names of the folder's own
SECOND_FACE = 0.5  # of the first one's width: smaller ones are far behind, or none at all
SEVERAL_SHARE = 0.5  # of the pictures that were looked at


@dataclass(frozen=True)
class Report:
    """What was written: its folder, the clips with their number of pictures, bytes, seconds."""

    out: Path
    clips: dict[str, int]
    size: int
    seconds: float

    def __str__(self) -> str:
        clips = ", ".join(f"{name} {count} pictures" for name, count in self.clips.items())
        return f"{self.out}: {clips}; {self.size / 1e6:.1f} MB; {self.seconds:.1f} s"


def parser() -> argparse.ArgumentParser:
    """Every option of the command line."""
    result = Parser(
        prog=f"python -m {PROGRAM}",
        description="Prepare an avatar: what a live session needs of its videos, found once and kept in a folder.",
        allow_abbrev=False,
    )
    result.add_argument("idle", metavar=IDLE_VIDEO, help="the face at rest, looped there and back; or a folder of pictures, or an avatar")
    result.add_argument(
        "--clip", action="append", default=[], metavar="NAME=VIDEO", help="the same face doing something else, played when asked for"
    )
    result.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the avatar's folder, which must not exist yet")
    result.add_argument("--consent", metavar="TEXT", help="who agreed to this avatar, and for what (default: what the given avatar says)")
    result.add_argument("--bundle", metavar="NAME|FOLDER", help="the networks (default: the given avatar's own, else nano)")
    result.add_argument(
        "--require-signature", type=Path, metavar="KEY.pub", help="open only networks signed with this key (flashlips_edge.signature)"
    )
    result.add_argument("--detector", type=Path, metavar="FILE", help="a YuNet face detector (.onnx); else OpenCV's Haar cascade")
    result.add_argument("--threads", type=int, default=2, metavar="N", help="threads of the networks (default: 2)")
    return result


def prepare(
    idle: str | Path,
    clips: dict[str, str | Path],
    out: Path,
    consent: str | None,
    bundle: str | Path | None = None,
    detector: Path | None = None,
    threads: int = 2,
    require_signature: Path | None = None,
) -> Report:
    """Write the folder ``out`` beside its place and put it there when it is whole.

    Raises:
        UserError: empty consent, a folder that exists, networks not signed with the key `require_signature`, a video that is broken,
            has another size, no face, or several.
    """
    start = time.perf_counter()
    given = AvatarFolder.open(idle)
    said = consent if consent is not None or given is None else given.record.get("consent")
    consent = said.strip() if isinstance(said, str) else ""
    if not any(map(str.isalnum, consent)):
        raise UserError("--consent is missing or empty: name who agreed to this avatar, and for what")
    if out.exists():
        raise UserError(f"--out {out}: exists already; name a new folder, or delete it first")
    if not 1 <= threads <= 256:
        raise UserError(f"--threads {threads} is out of range: 1 to 256")
    own = given.bundle if given is not None and bundle is None else None
    if given is not None:
        clips = {**{name: given.folder / f"{name}.mp4" for name in given.clips[1:]}, **clips}
    sources = {IDLE: Clip(given.video if given is not None else idle, IDLE_VIDEO)}
    sources |= {name: Clip(video, f"--clip {name}") for name, video in clips.items()}
    networks = Networks(open_bundle(own or bundle or "nano", require_signature), threads)
    finder: Detector = HaarDetector() if detector is None else YuNetDetector(detector)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with beside(out) as temporary:
            folder = temporary / "avatar"
            folder.mkdir()
            counts = _write(sources, folder, networks, finder)
            if own is not None:
                shutil.copytree(own, folder / BUNDLE)
            fields = {"clips": list(sources), "networks": prepared.digest(networks.bundle), "bundle": BUNDLE if own is not None else None}
            write_record(folder, f"{IDLE}.mp4", consent, fields)
            folder.rename(out)
    except OSError as error:
        raise UserError(f"--out {out}: it cannot be written: {error.strerror or error}; choose another place") from None
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Report(out, counts, size, time.perf_counter() - start)


def _write(sources: dict[str, Clip], folder: Path, networks: Networks, detector: Detector) -> dict[str, int]:
    """Write every clip and the identity; gives the number of pictures of each."""
    clips: list[PreparedClip] = []
    with ExitStack() as files:
        for name, source in sources.items():
            idle, argument = clips[0] if clips else None, f"--clip {name}" if clips else IDLE_VIDEO
            with tqdm(desc=f"{name}: pictures", unit="picture") as bar:
                clip = prepared.write_pictures(source, folder, name, detector, argument, idle, bar.update)
            files.callback(clip.video.close)
            _check_faces(clip, detector, argument, source.path)
            with tqdm(desc=f"{name}: latents", unit="picture", total=clip.video.count) as bar:
                clip = prepared.encode(clip, networks, bar.update)
            clips.append(clip if idle is None else prepared.follow_on(clip, idle))
            prepared.save(clips[-1], folder)
            clips[-1] = replace(clips[-1], latents=None)
        references = prepared.references_in(clips, networks)
        assert references is not None  # each clip shows a face
        prepared.save_identity(references, folder)
    return {clip.name: clip.video.count for clip in clips}


def _check_faces(clip: PreparedClip, detector: Detector, argument: str, path: Path) -> None:
    if not any(clip.boxes):
        raise UserError(f"{argument} {path}: no face was found in its {clip.video.count} pictures; give one that faces the camera")
    looked = [detector(clip.video.group(group)[0].luma) for group in evenly(range(-(-clip.video.count // GROUP)))]
    several = [boxes for boxes in looked if len(boxes) > 1 and boxes[1].width > SECOND_FACE * boxes[0].width]
    if len(several) > SEVERAL_SHARE * len(looked):
        raise UserError(f"{argument} {path}: it shows several faces; give a video of one, or cut the others off")


def _named(words: Sequence[str]) -> dict[str, str | Path]:
    """name=VIDEO of each --clip."""
    clips: dict[str, str | Path] = {}
    for word in words:
        name, _, video = word.partition("=")
        if not video or not CLIP_NAME.fullmatch(name) or name in TAKEN:
            raise UserError(f"--clip {word}: give NAME=VIDEO, the name of small letters, digits, - and _, and not {' or '.join(TAKEN)}")
        if name in clips:
            raise UserError(f"--clip {word}: there are two clips of that name; give each its own")
        clips[name] = video
    return clips


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 for wrong use, 130 where Ctrl-C ended it; then nothing was written."""
    try:
        options = parser().parse_args(arguments)
        clips = _named(options.clip)
        how = (options.bundle, options.detector, options.threads, options.require_signature)
        report = prepare(options.idle, clips, options.out, options.consent, *how)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped, nothing was written", file=sys.stderr)
        return STOPPED
    print(report)
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
