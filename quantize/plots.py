"""The ranked sensitivities as a picture."""

from __future__ import annotations

from pathlib import Path

from flashlips_edge.files import atomic_path
from quantize.answers import decibels
from quantize.layers import Layer
from quantize.sensitivity import Damage

COLOURS = {
    "latent_encoder": "tab:blue",
    "editor": "tab:orange",
    "latent_decoder": "tab:green",
    "lips_encoder": "tab:red",
    "speech_encoder": "tab:purple",
    "audio_to_lips": "tab:brown",
}
LEAST = 1e-6  # below it a bar would have no length


def sensitivity(damages: dict[Layer, Damage], low: set[Layer], path: Path) -> None:
    """Bars, the most sensitive layer on top: the mouth box, the lips vector and the lips from speech; hatched: stays high."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = sorted(damages, key=lambda layer: (layer.graph, -damages[layer].picture, -damages[layer].lips, -damages[layer].spoken))
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 0.16 * len(rows) + 1.5), sharey=True)
    for axis, name, title in zip(axes, ("picture", "lips", "spoken"), ("mouth box, dB", "lips: 1 - cosine", "speech: 1 - correlation")):
        values = [max(LEAST, getattr(damages[layer], name)) for layer in rows]
        colours = [COLOURS[layer.graph] for layer in rows]
        bars = axis.barh(range(len(rows)), values, color=colours)
        for bar, layer in zip(bars, rows):
            bar.set_hatch("" if layer in low else "////")
        axis.set_xscale("log")
        axis.set_title(title, fontsize=9)
    ticks = [10.0**power for power in range(-3, 2)]
    axes[0].set_xticks(ticks, [f"{decibels(tick):.0f}" for tick in ticks], fontsize=7)
    axes[0].set_xlim(LEAST * 100, None)
    axes[0].set_yticks(range(len(rows)), [f"{layer.graph} {layer.name}" for layer in rows], fontsize=6)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
