"""What a personal avatar gains: fine-tune on seven clips of a speaker who is not in the data, measure on three others.

    python -m benchmarks.personal --out benchmarks/personal.json

The tuned networks are thrown away: the test clips train nothing that is shipped.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import report
from flashlips_edge.evaluation.judges import Judges
from flashlips_edge.evaluation.parts import Evaluation
from flashlips_edge.files import write_bytes
from flashlips_edge.training import personal

SPEAKER = "s31"
TAUGHT = 7
PARTS = ("same_face", "self_drive", "speech")


def measure(videos: Path, bundle: str, judges: Judges, work: Path) -> dict[str, float]:
    """The evaluation's figures of a bundle on a folder of videos, without the set's name."""
    (work / "crops").mkdir(parents=True)
    evaluation = Evaluation(videos, bundle, judges, work, work / "crops", quick=False)
    figures = {name.removesuffix(f".{SPEAKER}"): round(value, 4) for part in PARTS for name, value in evaluation.run(part)}
    for what, why in evaluation.findings.left_out.items() - judges.missing.items():
        raise UserError(f"{what} failed ({why}); the figures would be of other clips before than after")
    return figures


def main() -> None:
    parser = Parser(prog="python -m benchmarks.personal", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FLASHLIPS_DATA") or "../shared/data"))
    parser.add_argument("--weights", type=Path, default=personal.SHIPPED / "nano")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/personal.json"))
    options = parser.parse_args()
    clips = sorted((options.data / "test" / "grid_unseen").glob(f"{SPEAKER}_*"))
    if len(clips) <= TAUGHT:
        raise UserError(f"--data {options.data}: {len(clips)} clips of {SPEAKER} there; more than {TAUGHT} are needed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        started = time.monotonic()
        tuning = personal.make(clips[:TAUGHT], "a measurement; thrown away", folder / "avatar", options.weights, options.steps, "nano")
        tuned_s = time.monotonic() - started
        videos = folder / "videos" / SPEAKER
        videos.mkdir(parents=True)
        for path in clips[TAUGHT:]:
            (videos / path.name).symlink_to(path.resolve())
        judges = Judges.open(None, Path(os.environ.get("FLASHLIPS_MODELS") or "../shared/models"), None)
        bundles = {"shipped": "nano", "personal": str(folder / "avatar" / "bundle")}
        figures = {name: measure(videos, bundle, judges, folder / name) for name, bundle in bundles.items()}
    result = {
        **figures,
        "tuning": tuning | {"seconds": round(tuned_s)},
        "circumstances": report.circumstances(Bundle.open("nano"), time.monotonic() - started, judges.missing),
    }
    write_bytes(options.out, json.dumps(result, indent=2).encode() + b"\n")
    for name, shipped in figures["shipped"].items():
        print(f"{name:40} shipped {shipped:9.3f}, personal {figures['personal'][name]:9.3f}")


if __name__ == "__main__":
    with one_sentence("benchmarks.personal"):
        main()
