"""How many samples a second the drawing delivers and a step of the editor's training consumes, and what a sample costs, at each preset.

    python -m flashlips_edge.training.throughput --preset nano --preset edge --preset paper

On made-up people of the preset's shapes, so that no data is needed; on the GPU where there is one. Worker processes keep a GPU busy
where the first figure is the larger. ``--batch`` and ``--workers`` try others than the preset's and the machine's.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from flashlips_edge.files import write_bytes
from flashlips_edge.models.autoencoder import Autoencoder
from flashlips_edge.models.lips import FACE_SIZE
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.boxes import lower_row
from flashlips_edge.training.command import command
from flashlips_edge.training.editor import MASKED_SHARE, Backbone, BackboneOption, EditorLoss, EditorTask, LowerDecoder
from flashlips_edge.training.feature_files import feature_networks
from flashlips_edge.training.loop import AHEAD, Batches, Draw, fabric_of_environment, worker_count
from flashlips_edge.training.losses import LossWeights, ReconstructionLoss
from flashlips_edge.training.pairs import Person, draw

PEOPLE, FRAMES = 64, 40
WARM_UP = 2  # steps


def make_people(preset: dict[str, Any], folder: Path) -> list[Person]:
    """People with cached latents of noise."""
    generator = np.random.default_rng(0)
    size, (c, (h, w)) = preset["crop_size"], (preset["editor"]["latent_channels"], preset["editor"]["size"])
    face = preset["lips"].get("face_size", FACE_SIZE)
    shapes = {"lower": (size - lower_row(preset), size, 3), "face": (face, face, 3)}
    for index in range(PEOPLE):
        person = folder / f"noise.{index}.0"
        person.mkdir()
        for name, shape in shapes.items():
            np.save(person / f"{name}.npy", generator.integers(0, 256, (FRAMES, *shape), np.uint8))
        for name in ("masked", "latents"):
            np.save(person / f"{name}.npy", generator.standard_normal((FRAMES, c, h, w), np.float32).astype(np.float16))
        np.save(person / "pose.npy", generator.standard_normal((FRAMES, 200), np.float32))
    return [Person(path) for path in sorted(folder.iterdir())]


def per_second(batches: Iterator[Any], first: int, count: int, samples: int) -> float:
    """Samples a second over ``count`` batches of ``samples``, after the ``first``."""
    for _ in range(first):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * samples / (time.perf_counter() - start)


def drawn_per_second(batch: Draw, count: int, samples: int, workers: int) -> float:
    """Samples a second that the workers draw, over ``count`` batches or four of each worker. The first are those that they had ready
    before the clock ran, and so many are asked for beyond the last, so that no worker idles while it runs."""
    ahead, count = workers * AHEAD, max(count, 4 * workers)
    sampler = range(ahead + count + ahead)
    loader = DataLoader(Batches(batch, 0), batch_size=None, sampler=sampler, num_workers=workers, prefetch_factor=AHEAD)
    return per_second(iter(loader), ahead, count, samples)


def measure(name: str, backbone: Backbone, count: int, samples: int | None = None, workers: int | None = None) -> dict[str, Any]:
    """What the drawing delivers, the step consumes and a sample costs, forwards and backwards, at preset ``name``."""
    preset, fabric = load_preset(name), fabric_of_environment()
    gpu = fabric.device.type == "cuda"
    samples, workers = samples or preset["training"]["batch"], workers or worker_count(fabric)
    with tempfile.TemporaryDirectory() as folder:
        people = make_people(preset, Path(folder))
        for person in people:
            _ = person.mouths  # found once for each person, which training has behind it after its first minute
        batch = partial(draw, people, np.full(PEOPLE, 1 / PEOPLE), count=samples, masked_share=MASKED_SHARE)
        drawn = drawn_per_second(batch, count, samples, workers)
        ready = batch(np.random.default_rng(0))
    task = EditorTask(preset, backbone).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decoder = LowerDecoder(Autoencoder(**preset["autoencoder"]).decoder, lower_row(preset))
    loss = EditorLoss(ReconstructionLoss(LossWeights(**preset["loss"]), decoder, *feature_networks(None, None))).to(fabric.device)
    task.to(fabric.device)
    optimiser = torch.optim.AdamW(task.parameters(), lr=1e-6)
    ready = fabric.to_device(ready)

    def steps() -> Iterator[None]:
        while True:
            with fabric.autocast():
                total = sum(term.float() for term in loss(task, ready).values())
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[union-attr]
            optimiser.step()
            if gpu:
                torch.cuda.synchronize()
            yield

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused attention is not counted everywhere
        next(steps())
    return {
        "preset": name,
        "backbone": backbone.value,
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads",
        "batch": samples,
        "workers": workers,
        "drawn_per_second": round(drawn, 1),
        "used_per_second": round(per_second(steps(), WARM_UP, count, samples), 1),
        "gflop_per_sample": round(counter.get_total_flops() / samples / 1e9, 1),
    }


def main(
    preset: Annotated[list[str], typer.Option(help="nano, edge or paper; may be given more than once")] = ["nano", "edge", "paper"],  # noqa: B006
    steps: Annotated[int, typer.Option(help="steps to measure")] = 20,
    backbone: BackboneOption = Backbone.UNET,
    batch: Annotated[Optional[int], typer.Option(help="samples of a step; default: the preset's", min=1)] = None,  # noqa: UP045
    workers: Annotated[Optional[int], typer.Option(help="processes that draw; default: as in training", min=1)] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="a file for the figures, as JSON")] = None,  # noqa: UP045
) -> None:
    """Measure drawing and training."""
    rows = []
    for name in preset:
        rows.append(row := measure(name, backbone, steps, batch, workers))
        print(
            f"{name:<6} batch {row['batch']:3}  {row['workers']:2} workers draw {row['drawn_per_second']:8.1f} samples/s  "
            f"a step on {row['device']} takes {row['used_per_second']:8.1f} samples/s  {row['gflop_per_sample']:6.1f} GFLOP a sample",
            flush=True,
        )
    if out is not None:
        write_bytes(out, (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    command(main)
