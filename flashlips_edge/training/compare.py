"""python -m flashlips_edge.training.compare --bundle nano --weights weights/nano: a bundle's graphs against torch, which runs the weights.

The golden inputs go through both engines; what is printed is how far they are apart and how long each takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from flashlips_edge.bundle import GRAPHS, Bundle
from flashlips_edge.engines.choice import Engine, shared_engine
from flashlips_edge.engines.torch import TorchEngine
from flashlips_edge.models.presets import load_preset
from flashlips_edge.training.command import command
from flashlips_edge.training.export import load_graphs


def open_torch_engines(bundle: Bundle, weights: Path, device: str = "cpu") -> dict[str, TorchEngine]:
    """The networks of a bundle's preset by graph, with the weights that training wrote. UserError for what is missing."""
    entries = bundle.manifest["graphs"]
    models = load_graphs(load_preset(bundle.preset), weights)
    return {name: TorchEngine(models[name], entries[name]["inputs"], entries[name]["outputs"], device) for name in GRAPHS}


def main(
    bundle: Annotated[str, typer.Option(help="a bundle's name or folder")] = "nano",
    weights: Annotated[Path, typer.Option(help="folder of trained weights")] = Path("weights/nano"),
    device: Annotated[str, typer.Option(help="where torch runs: cpu or cuda")] = "cpu",
    runs: Annotated[int, typer.Option(min=1, help="how often, for the time")] = 5,
) -> None:
    """A bundle's graphs against torch."""
    opened = Bundle.open(bundle)
    print(f"{'graph':<16} {'apart':>7} {'torch':>11} {'engine':>11}")
    for name, reference in open_torch_engines(opened, weights, device).items():
        inputs, _ = opened.golden(name)
        engine = shared_engine(opened, name, 2)
        expected, given = reference.run(inputs), engine.run(inputs)
        apart = max(float(np.abs(given[key] - expected[key]).max() / np.abs(expected[key]).max()) for key in expected)
        print(f"{name:<16} {apart:>7.2%} {milliseconds(reference, inputs, runs):>8.2f} ms {milliseconds(engine, inputs, runs):>8.2f} ms")


def milliseconds(engine: Engine, inputs: dict[str, np.ndarray], runs: int) -> float:
    """Of a run, once the engine is warm."""
    before = engine.seconds
    for _ in range(runs):
        engine.run(inputs)
    return 1000 * (engine.seconds - before) / runs


if __name__ == "__main__":
    command(main)
