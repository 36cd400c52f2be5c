"""The parts of an evaluation: one bundle on one folder of videos. Each part yields names with values and adds to the findings."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError, reason
from flashlips_edge.evaluation import at_rest, autoencoder, control, costs, folder, same_face, self_drive, sheets, speed
from flashlips_edge.evaluation.judges import Judges
from flashlips_edge.evaluation.left_out import each
from flashlips_edge.evaluation.protocols import Scene, Studio
from flashlips_edge.evaluation.recordings import LIMIT_NS, Recording, partners
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.talking.networks import Networks

PARTS = ("costs", "autoencoder", "same_face", "control", "self_drive", "speech", "at_rest", "speed")
QUICK_NS = 1_600_000_000


@dataclass
class Findings:
    """Names of the `sets`; `metrics` by name; `scenes` by set; `pages` by title: contact sheets; `left_out`: what was not measured, why."""

    sets: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    scenes: dict[str, list[Scene]] = field(default_factory=dict)
    pages: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class Evaluation:
    """`videos` is the folder, `work` takes the sheets and the videos that are made, `store` holds crops while it lasts."""

    def __init__(self, videos: Path, bundle: str, judges: Judges, work: Path, store: Path, quick: bool):
        paths = folder.sets_of(videos, quick)
        self._videos = work / "videos"
        _check_place(work, self._videos)
        self.bundle = Bundle.open(bundle)
        self.findings = Findings(left_out=dict(judges.missing))
        self._bundle_name, self._judges, self._work = bundle, judges, work
        self._store = store
        self._photos = folder.photos_of(videos)
        self._networks = Networks(self.bundle)
        self._sets: dict[str, list[Recording]] = {}
        refused: dict[str, str] = {}
        for name, members in paths.items():
            for path in tqdm(members, f"reading {name}", leave=False):
                try:
                    clip = Recording.open(path, self.bundle.crop_size, judges.reader, store, QUICK_NS if quick else LIMIT_NS)
                    self._sets.setdefault(name, []).append(clip)
                except Exception as error:  # one odd video must not cost the others
                    refused[f"{name}/{path.name}"] = reason(error)
        if not self._sets:
            raise UserError(f"FOLDER {videos} holds no video that can be measured: {next(iter(refused.values()))}")
        self.findings.left_out |= refused
        self.findings.sets = list(self._sets)
        try:
            self._videos.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(work, error) from None

    def run(self, part: str) -> Iterator[tuple[str, float]]:
        """The part's figures, which also go to the findings. Where it fails it ends, and is left out by name, as is what is no figure."""
        try:
            for name, value in getattr(self, part)():
                if not math.isfinite(value):  # JSON has no word for it, and no mark can be held against it
                    self.findings.left_out[name] = f"it came out as {float(value)}, which is no figure"
                    continue
                self.findings.metrics[name] = float(value)
                yield name, float(value)
        except Exception as error:  # the report is written at the end: what the other parts found must reach it
            self.findings.left_out[part] = reason(error)

    def costs(self) -> Iterator[tuple[str, float]]:
        """Operations per frame and the bundle's size."""
        for name, value in costs.measure(self._networks).items():
            yield f"cost.gflop.{name}", value
        yield "cost.bundle_mb", sum(file.stat().st_size for file in self.bundle.folder.rglob("*") if file.is_file()) / 1e6

    def autoencoder(self) -> Iterator[tuple[str, float]]:
        """The mouth box, encoded and decoded."""
        for name, members in self._sets.items():
            values, rows = autoencoder.measure(self._networks, members, self.findings.left_out)
            self._page(f"autoencoder.{name}", rows, captions=["source", "result"] * 2)
            yield from ((f"autoencoder.{key}.{name}", value) for key, value in values.items())

    def same_face(self) -> Iterator[tuple[str, float]]:
        """Lips encoder to editor against copying a frame."""
        for name, members in self._sets.items():
            values, rows, captions = same_face.measure(self._networks, members, self.findings.left_out)
            self._page(f"same_face.{name}", rows, captions=captions)
            yield from ((f"same_face.{key}.{name}", value) for key, value in values.items())

    def control(self) -> Iterator[tuple[str, float]]:
        """Five lips vectors from closed to open, on every clip and on the photos."""
        reader = self._judges.reader
        if reader is None:
            return
        for name, members in self._sets.items():
            values, rows = control.measure(self.bundle, self._networks, reader, members, self.findings.left_out)
            self._page(f"control.{name}", rows)
            yield from ((f"control.{key}.{name}", value) for key, value in values.items())
        driver = next(iter(self._sets.values()))[0]
        values, rows = control.measure_photos(self._networks, reader, self._photos, driver, self.findings.left_out)
        self._page("control.photos", rows)
        yield from ((f"control.photos.{key}", value) for key, value in values.items())

    def self_drive(self) -> Iterator[tuple[str, float]]:
        """Clips driven by their own faces through the run path."""
        for name, members in self._sets.items():
            values = self_drive.measure(members, self._bundle_name, self._videos, self.findings.left_out)
            yield from ((f"self_drive.{key}.{name}", value) for key, value in values.items())

    def speech(self) -> Iterator[tuple[str, float]]:
        """Both protocols and silence through the run path, beside the systems that give the scale."""
        studio = Studio(self.bundle, self._networks, self._judges, self._videos)
        for name, members in self._sets.items():
            scenes = self.findings.scenes[name] = self._scenes(studio, name, self._heard(members))
            for key in dict.fromkeys(key for scene in scenes for key in scene.figures):
                values = [scene.figures[key] for scene in scenes if key in scene.figures]
                yield f"{key.replace('ours.', 'speech.')}.{name}", float(np.mean(values))

    def at_rest(self) -> Iterator[tuple[str, float]]:
        """Faces that were seen at rest only, made to speak through the run path."""
        reader = self._judges.reader
        for name, members in self._sets.items() if reader is not None else ():
            assert reader is not None
            clips = self._heard(members)
            values, rows = at_rest.measure(self.bundle, clips, reader, self._videos, self._store, self.findings.left_out)
            self._page(f"at_rest.{name}", rows, captions=["true", "spoken"] * at_rest.SHOWN)
            yield from ((f"at_rest.{key}.{name}", value) for key, value in values.items())

    def speed(self) -> Iterator[tuple[str, float]]:
        """The run path's frames per second on the clip with the largest picture; the machine must have nothing else to do."""
        clips = [clip for members in self._sets.values() for clip in self._heard(members)]
        largest = [max(clips, key=_pixels)] if clips else []
        for values in each("speed", largest, lambda clip: speed.measure(clip, self._bundle_name, self._videos), self.findings.left_out):
            yield from ((f"speed.{name}", value) for name, value in values.items())

    def _scenes(self, studio: Studio, name: str, clips: list[Recording]) -> list[Scene]:
        """Each clip with its partner, and its page."""
        partner_of = dict(partners(clips))

        def speak(clip: Recording) -> Scene:
            scene = studio.scene(clip, partner_of[clip])
            self._page(f"speech.{scene.name}", scene.rows, tile_px=110)
            return scene

        return each("speech", tqdm(clips, f"speaking {name}", leave=False), speak, self.findings.left_out)

    def _heard(self, clips: list[Recording]) -> list[Recording]:
        """Those with sound; the others are left out by name."""
        return each("speech", clips, lambda clip: (clip.sound(), clip)[1], self.findings.left_out)

    def _page(self, title: str, rows: sheets.Rows, tile_px: int = 160, captions: list[str] | None = None) -> None:
        """A contact sheet; none of no rows."""
        if rows:
            path = self._work / f"{title}.png"
            sheets.save(path, sheets.sheet(rows, tile_px, captions))
            self.findings.pages[title] = path


def _check_place(work: Path, *inside: Path) -> None:
    """Raises UserError where a folder cannot be made or written. It is not made yet: a run that finds nothing to measure leaves none."""
    try:
        for place in (work, *inside):
            there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
            if not there.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(work, error) from None


def _unwritable(work: Path, error: OSError) -> UserError:
    return UserError(f"--out {work}: {error.strerror}; name a folder that can be written")


def _pixels(clip: Recording) -> int:
    with VideoFile(clip.path) as video:
        return video.width * video.height
