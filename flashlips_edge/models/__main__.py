"""python -m flashlips_edge.models: every preset's networks with their parameters and operations."""

from __future__ import annotations

from collections.abc import Sequence

from flashlips_edge.arguments import Parser, one_sentence
from flashlips_edge.models.networks import costs
from flashlips_edge.models.presets import FOLDER, load_preset

PROGRAM = "flashlips_edge.models"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table for each preset."""
    with one_sentence(PROGRAM):
        Parser(prog=f"python -m {PROGRAM}", description="Every preset's networks, their parameters and operations.").parse_args(arguments)
    for name in sorted(path.stem for path in FOLDER.glob("*.yaml")):
        preset = load_preset(name)
        size, (h, w), c = preset["crop_size"], preset["editor"]["size"], preset["editor"]["latent_channels"]
        steps = preset["audio_to_lips"]["window"]
        print(f"{name}: crops of {size} px, latents {c}x{h}x{w}; one call is a picture, or {steps} steps of speech")
        print(f"  {'network':<20}{'parameters':>12}{'GFLOP':>10}")
        for network, cost in costs(preset).items():
            print(f"  {network:<20}{cost.parameters / 1e6:>11.2f}M{cost.flops / 1e9:>10.2f}")


if __name__ == "__main__":
    main()
