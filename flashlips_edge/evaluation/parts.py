"""The parts of an evaluation: one bundle on one folder of videos. Each part yields names with values and adds to the findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import autoencoder, control, costs, folder, same_face, self_drive, sheets, speed
from flashlips_edge.evaluation.judges import Judges
from flashlips_edge.evaluation.protocols import Scene, Studio
from flashlips_edge.evaluation.recordings import LIMIT_NS, Recording, partners
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.talking.networks import Networks

PARTS = ("costs", "autoencoder", "same_face", "control", "self_drive", "speech", "speed")
NOISE_CLIPS = 3  # of each set
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
        self.bundle = Bundle.open(bundle)
        self.findings = Findings(left_out=dict(judges.missing))
        self._bundle_name, self._judges, self._work = bundle, judges, work
        self._photos = folder.photos_of(videos)
        self._networks = Networks(self.bundle)
        self._sets: dict[str, list[Recording]] = {}
        refused: dict[str, str] = {}
        for name, members in paths.items():
            for path in tqdm(members, f"reading {name}", leave=False):
                try:
                    clip = Recording.open(path, self.bundle.crop_size, judges.reader, store, QUICK_NS if quick else LIMIT_NS)
                    self._sets.setdefault(name, []).append(clip)
                except UserError as error:
                    refused[f"{name}/{path.name}"] = str(error)
        if not self._sets:
            raise UserError(f"FOLDER {videos} holds no video that can be measured: {next(iter(refused.values()))}")
        self.findings.left_out |= refused
        self.findings.sets = list(self._sets)
        self._videos = work / "videos"
        try:
            self._videos.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {work}: {error.strerror}; name a folder that can be written") from None

    def run(self, part: str) -> Iterator[tuple[str, float]]:
        """The part's figures, which also go to the findings."""
        for name, value in getattr(self, part)():
            self.findings.metrics[name] = float(value)
            yield name, float(value)

    def costs(self) -> Iterator[tuple[str, float]]:
        """Operations per frame and the bundle's size."""
        for name, value in costs.measure(self._networks).items():
            yield f"cost.gflop.{name}", value
        yield "cost.bundle_mb", sum(file.stat().st_size for file in self.bundle.folder.rglob("*") if file.is_file()) / 1e6

    def autoencoder(self) -> Iterator[tuple[str, float]]:
        """The mouth box, encoded and decoded."""
        for name, members in self._sets.items():
            value, rows = autoencoder.measure(self._networks, members)
            self._page(f"autoencoder.{name}", sheets.sheet(rows, captions=["source", "result"] * 2))
            yield f"autoencoder.mouth_db.{name}", value

    def same_face(self) -> Iterator[tuple[str, float]]:
        """Lips encoder to editor against copying a frame."""
        for name, members in self._sets.items():
            values, rows, captions = same_face.measure(self._networks, members)
            self._page(f"same_face.{name}", sheets.sheet(rows, captions=captions))
            yield from ((f"same_face.{key}.{name}", value) for key, value in values.items())

    def control(self) -> Iterator[tuple[str, float]]:
        """Five lips vectors from closed to open, on every clip and on the photos."""
        reader = self._judges.reader
        if reader is None:
            return
        for name, members in self._sets.items():
            values, rows = control.measure(self.bundle, self._networks, reader, members)
            self._page(f"control.{name}", sheets.sheet(rows))
            yield from ((f"control.{key}.{name}", value) for key, value in values.items())
        driver = next(iter(self._sets.values()))[0]
        values, rows = control.measure_photos(self._networks, reader, self._photos, driver)
        if rows:
            self._page("control.photos", sheets.sheet(rows))
        yield from ((f"control.photos.{key}", value) for key, value in values.items())

    def self_drive(self) -> Iterator[tuple[str, float]]:
        """Clips driven by their own faces through the run path."""
        for name, members in self._sets.items():
            values = self_drive.measure(members[:: max(1, len(members) - 1)], self._bundle_name, self._videos)
            yield from ((f"self_drive.{key}.{name}", value) for key, value in values.items())

    def speech(self) -> Iterator[tuple[str, float]]:
        """Both protocols and silence through the run path, beside the systems that give the scale."""
        studio = Studio(self.bundle, self._networks, self._judges, self._videos)
        for name, members in self._sets.items():
            heard = [clip for clip in members if self._is_heard(clip)]
            noisy = set(np.linspace(0, len(heard) - 1, NOISE_CLIPS).astype(int).tolist()) if heard else set()
            scenes = self.findings.scenes.setdefault(name, [])
            for number, (clip, partner) in enumerate(tqdm(list(partners(heard)), f"speaking {name}", leave=False)):
                scenes.append(studio.scene(clip, partner, noise=number in noisy))
                self._page(f"speech.{scenes[-1].name}", sheets.sheet(scenes[-1].rows, tile_px=110))
            for key in dict.fromkeys(key for scene in scenes for key in scene.figures):
                values = [scene.figures[key] for scene in scenes if key in scene.figures]
                yield f"{key.replace('ours.', 'speech.')}.{name}", float(np.mean(values))

    def speed(self) -> Iterator[tuple[str, float]]:
        """The run path's frames per second on the clip with the largest picture; the machine must have nothing else to do."""
        clips = [clip.path for members in self._sets.values() for clip in members if self._is_heard(clip)]
        if clips:
            for name, value in speed.measure(max(clips, key=_pixels), self._bundle_name, self._videos).items():
                yield f"speed.{name}", value

    def _is_heard(self, clip: Recording) -> bool:
        try:
            clip.sound()
        except UserError as error:
            self.findings.left_out[f"speech on {clip.name}"] = str(error)
            return False
        return True

    def _page(self, title: str, picture: np.ndarray) -> None:
        self.findings.pages[title] = self._work / f"{title}.png"
        sheets.save(self.findings.pages[title], picture)


def _pixels(path: Path) -> int:
    with VideoFile(path) as video:
        return video.width * video.height
