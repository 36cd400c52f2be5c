"""What live lips cost: how well lips from speech follow the clip's own lips, by how much of the speech that follows is heard first.

    python -m benchmarks.look_ahead --out benchmarks/look_ahead.json

Each test clip speaks its own sound, pushed in steps of 40 ms, and its opening is correlated with the one its own pictures show (by the
lips encoder, so no figure here compares with those of the evaluation, which has another judge).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation.report import circumstances
from flashlips_edge.files import write_bytes
from flashlips_edge.media.audio_file import read_sound
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.speech.features import SAMPLES_PER_STEP
from flashlips_edge.talking.identity import Identity
from flashlips_edge.talking.lips import STEP_NS, SpeechToLips
from flashlips_edge.talking.networks import Networks
from flashlips_edge.talking.talker import Talker

SETS = ("grid_s1", "grid_unseen", "video")
WAYS = {"recorded": (None, 4), **{f"live, {40 * ahead} ms ahead": (1, ahead) for ahead in (0, 1, 2, 3, 4)}}
SUFFIXES = {".mp4", ".mpg", ".mov", ".webm", ".mkv"}
SECONDS = 10.0
REFERENCES = 16  # pictures of the clip that its identity is taken from


def main() -> None:
    parser = Parser(prog="python -m benchmarks.look_ahead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FLASHLIPS_DATA") or "../shared/data"))
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--out", type=Path, default=Path("out/look_ahead.json"))
    options = parser.parse_args()
    started = time.monotonic()
    figures: dict[str, dict[str, float]] = {}
    for name in SETS:
        clips = sorted(path for path in (options.data / "test" / name).glob("*") if path.suffix in SUFFIXES)
        if not clips:
            raise UserError(f"--data {options.data}: no videos in test/{name}")
        rows = [measure(path, options.bundle) for path in clips]
        figures[name] = {way: round(float(np.mean([row[way] for row in rows])), 3) for way in WAYS}
        print(f"{name:14}", "  ".join(f"{way} {value:.3f}" for way, value in figures[name].items()))
    result = {"figures": figures, "circumstances": circumstances(Bundle.open(options.bundle), time.monotonic() - started, {})}
    write_bytes(options.out, json.dumps(result, indent=2).encode() + b"\n")


def measure(path: Path, bundle: str) -> dict[str, float]:
    """Correlation of the opening of one clip, by way of making its lips."""
    with Talker.open(bundle, threads=1) as talker, VideoFile(path) as video:
        crops = []
        for frame in video:
            if frame.pts_ns > SECONDS * 1e9:
                break
            target = talker.track(frame)
            if target.crop is not None:
                talker.lips.append(frame.pts_ns, talker.networks.lips(target.crop.image[None])[0])
                crops.append(target.crop.image)
        steps = talker.lips.end_ns // STEP_NS
        shown = np.stack([talker.lips.at(step * STEP_NS) for step in range(steps)])
        identity = Identity.of(talker.networks, crops[:: max(1, len(crops) // REFERENCES)])
    sound = read_sound(path).speech()[: steps * SAMPLES_PER_STEP]
    opening = talker.networks.bundle.lips_opening
    count = len(sound) // SAMPLES_PER_STEP

    def correlation(new_steps: int | None, look_ahead: int) -> float:
        lips = spoken(talker.networks, identity, sound, new_steps, look_ahead)
        return float(np.corrcoef(lips[:count] @ opening, shown[:count] @ opening)[0, 1])

    return {way: correlation(*how) for way, how in WAYS.items()}


def spoken(networks: Networks, identity: Identity, sound: np.ndarray, new_steps: int | None, look_ahead: int) -> np.ndarray:
    """Lips [T, 12] of a sound that comes a step at a time."""
    to_lips = SpeechToLips(networks, *identity.lips, new_steps=new_steps, look_ahead=look_ahead)
    parts = [to_lips.push(sound[start : start + SAMPLES_PER_STEP]) for start in range(0, len(sound), SAMPLES_PER_STEP)]
    return np.concatenate([*parts, to_lips.finish()])


if __name__ == "__main__":
    with one_sentence("benchmarks.look_ahead"):
        main()
