"""Everything the project must show, measured on clips that no network was trained on: a table, JSON and contact sheets."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import (
    autoencoder,
    control,
    costs,
    recordings,
    report,
    same_face,
    self_drive,
    sheets,
    speech,
    speed,
)
from flashlips_edge.evaluation.landmarks import LipReader
from flashlips_edge.networks import Networks

PROGRAM = "flashlips_edge.evaluation"
PARTS = ("costs", "autoencoder", "same_face", "control", "self_drive", "speech", "speed")
RESULT = Path("benchmarks/evaluation.json")
SHEETS = Path("out/evaluation")
PARTIAL = SHEETS / "evaluation.json"
QUICK_SOUND_S = 1.0
SILENT_CLIPS = 3  # of each set
QUICK_FRAMES = 40


class Evaluation:
    """One bundle on one folder of data. Each part is a method that yields names with values; sheets go to `SHEETS`."""

    def __init__(self, data: Path, models: Path, bundle: str, quick: bool):
        self._bundle_name, self._data, self._quick = bundle, data, quick
        paths = {name: recordings.videos_of(data, name, quick) for name in recordings.SETS}
        self._reader = LipReader(models)
        self.bundle = Bundle.open(bundle)
        self._networks = Networks(self.bundle)
        limit = QUICK_FRAMES if quick else None
        self._sets = {
            name: [
                recordings.Recording.open(path, self.bundle.crop_size, self._reader, limit)
                for path in tqdm(paths[name], f"reading {name}", leave=False)
            ]
            for name in recordings.SETS
        }
        self._videos = SHEETS / "videos"
        self._videos.mkdir(parents=True, exist_ok=True)

    def costs(self) -> Iterator[tuple[str, float]]:
        """Operations per frame and the bundle's size."""
        for name, value in costs.measure(self._networks).items():
            yield f"cost.gflop.{name}", value
        yield "cost.bundle_mb", sum(file.stat().st_size for file in self.bundle.folder.rglob("*") if file.is_file()) / 1e6

    def autoencoder(self) -> Iterator[tuple[str, float]]:
        """The mouth box, encoded and decoded."""
        for name, members in self._sets.items():
            value, rows = autoencoder.measure(self._networks, members)
            sheets.save(SHEETS / f"autoencoder.{name}.png", sheets.sheet(rows, captions=["source", "result"] * 2))
            yield f"autoencoder.mouth_db.{name}", value

    def same_face(self) -> Iterator[tuple[str, float]]:
        """Lips encoder to editor against copying a frame."""
        for name, members in self._sets.items():
            values, rows, captions = same_face.measure(self._networks, members)
            sheets.save(SHEETS / f"same_face.{name}.png", sheets.sheet(rows, captions=captions))
            yield from ((f"same_face.{key}.{name}", value) for key, value in values.items())

    def control(self) -> Iterator[tuple[str, float]]:
        """Five lips vectors from closed to open, on every clip and on the photos."""
        for name, members in self._sets.items():
            values, rows = control.measure(self.bundle, self._networks, self._reader, members)
            sheets.save(SHEETS / f"control.{name}.png", sheets.sheet(rows))
            yield from ((f"control.{key}.{name}", value) for key, value in values.items())
        photos = sorted((self._data / "test" / "photos").glob("*.jpg"))
        values, rows = control.measure_photos(self._networks, self._reader, photos, self._sets["grid_s1"][0])
        if rows:
            sheets.save(SHEETS / "control.photos.png", sheets.sheet(rows))
        yield from ((f"control.photos.{key}", value) for key, value in values.items())

    def self_drive(self) -> Iterator[tuple[str, float]]:
        """Clips driven by their own faces through the run path."""
        for name, members in self._sets.items():
            values = self_drive.measure(members[:: max(1, len(members) - 1)], self._bundle_name, self._videos)
            yield from ((f"self_drive.{key}.{name}", value) for key, value in values.items())

    def speech(self) -> Iterator[tuple[str, float]]:
        """Speech and silence through the run path."""
        studio = speech.Studio(self._reader, self._bundle_name, self._videos, QUICK_SOUND_S if self._quick else None)
        for name, members in self._sets.items():
            own = [studio.own(clip) for clip in tqdm(members, desc=f"own {name}", leave=False)]
            pairs = list(recordings.partners(members))
            crossed = [studio.crossed(*pair) for pair in tqdm(pairs, desc=f"crossed {name}", leave=False)]
            yield from ((f"speech.own.{key}.{name}", value) for key, value in speech.measure_own(own).items())
            yield from ((f"speech.crossed.{key}.{name}", value) for key, value in speech.measure_crossed(crossed).items())
            chosen = [members[i] for i in np.unique(np.linspace(0, len(members) - 1, SILENT_CLIPS).astype(int))]
            silent = {kind: [studio.silent(clip, kind) for clip in chosen] for kind in ("zeros", "noise")}
            for kind, takes in silent.items():
                values = speech.measure_silence(takes, own)
                yield from ((f"silence.{kind}.{key}.{name}", value) for key, value in values.items())
            for kind, takes in {"own": own, "crossed": crossed, **silent}.items():
                sheets.save(SHEETS / f"{kind}.{name}.png", sheets.stack([take.page() for take in takes]))

    def speed(self) -> Iterator[tuple[str, float]]:
        """The run path's frames per second; the machine must have nothing else to do."""
        for name, value in speed.measure(self._sets["video"][0].path, self._bundle_name, self._videos).items():
            yield f"speed.{name}", value


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help names every option.")


def parser() -> argparse.ArgumentParser:
    """Every option of the command line."""
    result = Parser(prog=f"python -m {PROGRAM}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("FLASHLIPS_DATA") or "../shared/data"
    models = os.environ.get("FLASHLIPS_MODELS") or "../shared/models"
    result.add_argument("--data", type=Path, default=data, help="folder of the recorded data (or FLASHLIPS_DATA)")
    result.add_argument("--models", type=Path, default=models, help="folder of the landmark network (or FLASHLIPS_MODELS)")
    result.add_argument("--bundle", default="nano", help="name or folder of the bundle (default: nano)")
    result.add_argument("--parts", default=",".join(PARTS), help="which, with commas between (default: %(default)s)")
    result.add_argument("--out", type=Path, help=f"JSON of the metrics (default: {RESULT}; {PARTIAL} for less than everything)")
    result.add_argument("--quick", action="store_true", help="a few short clips: does it run at all")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of metrics with their marks and writes it as JSON; contact sheets go to out/evaluation."""
    start = time.monotonic()
    options = parser().parse_args(arguments)
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"--parts {unknown[0]!r} is not one of {', '.join(PARTS)}.")
    evaluation = Evaluation(options.data, options.models, options.bundle, options.quick)
    metrics: dict[str, float] = {}
    for part in PARTS:
        if part in parts:
            measure: Callable[[], Iterator[tuple[str, float]]] = getattr(evaluation, part)
            for name, value in measure():
                metrics[name] = value
                tqdm.write(f"{name} {value:.3f}", file=sys.stderr)
    out = options.out or (RESULT if not options.quick and set(parts) == set(PARTS) else PARTIAL)
    report.write(out, metrics, report.circumstances(evaluation.bundle, time.monotonic() - start))
    print(report.table(metrics))
    print(f"{out}, sheets in {SHEETS}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        sys.exit(2)
