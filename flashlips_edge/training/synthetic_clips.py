"""Training clips of the synthetic head: many people, a few poses each, several lips in every pose.

python -m flashlips_edge.training.synthetic_clips --people 160 --out work/clips
"""

from __future__ import annotations

from itertools import repeat
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.command import command
from flashlips_edge.training.shards import Members, Shards
from flashlips_edge.training.synthetic_head import Identity, Lips, Pose, render
from flashlips_edge.training.synthetic_head.demo import avatar_identity
from flashlips_edge.training.workers import worker_pool

POSES, LIPS_PER_POSE = 6, 5
DEMO_POSES = 40
FIRST_SEED = 1000  # smaller seeds are for tests and the demo


def random_lips(generator: np.random.Generator) -> Lips:
    """Closed one time in five, else anywhere in what speech uses."""
    if generator.random() < 0.2:
        return Lips(press=float(generator.random() < 0.5))
    jaw = float(np.clip(generator.gamma(2.0, 0.18), 0, 1))
    rounded = float(generator.random() * (generator.random() < 0.3))
    return Lips(
        jaw=jaw,
        width=float(generator.uniform(-0.6, 0.8)),
        round=rounded,
        upper_teeth=float(generator.random()),
        lower_teeth=float(generator.random() ** 2),
        tongue=float(generator.random() ** 2),
        tuck=float(generator.random() < 0.06),
    )


def random_pose(generator: np.random.Generator) -> Pose:
    """A pose as the tracker would cut it: nearly centred, turned a little."""
    clip = np.clip
    return Pose(
        yaw=float(clip(generator.normal(0, 0.2), -0.6, 0.6)),
        pitch=float(clip(generator.normal(0, 0.08), -0.3, 0.3)),
        roll=float(clip(generator.normal(0, 0.12), -0.4, 0.4)),
        x=float(generator.normal(0, 0.015)),
        y=float(generator.normal(0, 0.015)),
        scale=float(clip(generator.normal(1.0, 0.06), 0.8, 1.25)),
        blink=float(generator.random() < 0.1),
        brow=float(clip(generator.normal(0, 0.3), -1, 1)),
        gaze=float(clip(generator.normal(0, 0.2), -1, 1)),
    )


def make(seed: int | None, size: int) -> Members:
    """The arrays that ``prepare`` writes, crops uint8 [T, size, size, 3], with the true lips params float32 [T, 6] and no sound;
    without a seed the person of the demo, whom the editor is to know well."""
    generator = np.random.default_rng(0 if seed is None else seed)
    identity = avatar_identity() if seed is None else Identity.from_seed(seed)
    crops, params = [], []
    for _ in range(DEMO_POSES if seed is None else POSES):
        pose = random_pose(generator)
        for _ in range(LIPS_PER_POSE):
            lips = random_lips(generator)
            crops.append(render(identity, pose, lips, (size, size)))
            open_jaw = lips.jaw * (1 - lips.press) * (1 - lips.tuck)  # what is seen, not what the jaw does behind pressed lips
            params.append([open_jaw, *lips.vector()[1:]])
    return {
        "json": {"source": "the synthetic head", "seed": seed},
        "crops.npy": np.stack(crops),
        "pts_ns.npy": np.arange(len(crops)) * 40_000_000,
        "params.npy": np.float32(params),
    }


def main(
    people: Annotated[int, typer.Option(help="how many")] = 160,
    out: Annotated[Path, typer.Option(help="folder for the shards")] = Path("work/clips"),
    preset: Annotated[str, typer.Option(help="nano, edge or paper: the size of the crops")] = "nano",
    workers: Annotated[int, typer.Option(help="processes", min=1)] = 2,
) -> None:
    """Render training clips of the synthetic head."""
    size = load_preset(preset)["crop_size"]
    seeds = {"demo.avatar": None, **{f"synthetic.{seed}": seed for seed in range(FIRST_SEED, FIRST_SEED + people)}}
    with Shards(out, size) as shards:
        new = {name: seed for name, seed in seeds.items() if not shards.done(f"the synthetic head: {name}", 0)}
        pool = worker_pool(workers)
        try:
            for name, members in zip(tqdm(new, unit="person"), pool.map(make, new.values(), repeat(size))):
                shards.add(f"the synthetic head: {name}", 0, "1 kept", {name: members})
        finally:
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    command(main)
