"""What a video frame costs in floating-point operations, counted in the bundle's graphs."""

from __future__ import annotations

import numpy as np

from flashlips_edge.evaluation import flops
from flashlips_edge.speech.features import MELS_PER_STEP
from flashlips_edge.talking.lips import CONTEXT_STEPS
from flashlips_edge.talking.networks import Networks

LATENT_STRIDE = 8
PICTURE_GRAPHS = ("latent_encoder", "editor", "latent_decoder")


def measure(networks: Networks) -> dict[str, float]:
    """GFLOP per video frame: encode and decode, all three picture graphs, and recorded speech at 25 steps a second.

    Speech is counted as the run path hears it: a window at a time, with its context on both sides."""
    rows = networks.crop_size // LATENT_STRIDE  # of a whole latent, though the run path decodes the lower ones only
    gflop = {graph: _gflop(networks, graph, rows) for graph in PICTURE_GRAPHS}
    heard = MELS_PER_STEP * (networks.window + 2 * CONTEXT_STEPS)
    speech = _gflop(networks, "speech_encoder", heard) + _gflop(networks, "audio_to_lips", networks.window)
    return {
        "autoencoder": gflop["latent_encoder"] + gflop["latent_decoder"],
        "frame": sum(gflop.values()),
        "editor": gflop["editor"],
        "speech": speech / networks.window,
        "lips_encoder": _gflop(networks, "lips_encoder"),
    }


def _gflop(networks: Networks, graph: str, steps: int = 1) -> float:
    """Of one run with a batch of one; `steps` is the size of any other free axis."""
    shapes = networks.engine(graph).input_shapes
    inputs = {
        name: np.zeros([1] + [size if isinstance(size, int) else steps for size in shape[1:]], np.float32) for name, shape in shapes.items()
    }
    return flops.count(networks.bundle.graph_path(graph), inputs) / 1e9
