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

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import report, same_face
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.files import write_bytes
from flashlips_edge.talking.networks import Networks
from flashlips_edge.training import personal

SPEAKER = "s31"
TAUGHT = 7
FIGURES = ("masked_db", "masked_like_db", "cross_db", "copy_db", "best_copy_db", "like_copy_db")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FLASHLIPS_DATA") or "../shared/data"))
    parser.add_argument("--weights", type=Path, default=personal.SHIPPED)
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
        bundles = {"shipped": Bundle.open("nano"), "personal": Bundle.open(folder / "avatar" / "bundle")}
        (folder / "crops").mkdir()
        crop_size = bundles["shipped"].crop_size
        tested = [Recording.open(path, crop_size, None, folder / "crops") for path in clips[TAUGHT:]]
        figures = {}
        for name, bundle in bundles.items():
            values, _, _ = same_face.measure(Networks(bundle), tested)
            figures[name] = {key: round(values[key], 2) for key in FIGURES}
    result = {
        **figures,
        "tuning": tuning | {"seconds": round(tuned_s)},
        "circumstances": report.circumstances(bundles["shipped"], time.monotonic() - started, {}),
    }
    write_bytes(options.out, json.dumps(result, indent=2).encode() + b"\n")
    for key in FIGURES:
        print(f"{key:16} shipped {figures['shipped'][key]:6.2f} dB, personal {figures['personal'][key]:6.2f} dB")


if __name__ == "__main__":
    main()
