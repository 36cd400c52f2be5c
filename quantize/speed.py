"""Two bundles against each other on this machine: every graph of both in turn, so that what else runs slows both alike."""

from __future__ import annotations

import time

import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.talking.lips import JOIN_STEPS, LOOK_AHEAD_STEPS
from flashlips_edge.talking.networks import Networks
from quantize.graph import Feed

ROUNDS = 120
WARM_UP = 10
PICTURES = {"latent_encoder": 1.0, "editor": 1.0, "latent_decoder": 1.0}
SPEECH = ("speech_encoder", "audio_to_lips")
STEPS_OF_A_WINDOW = 50 - JOIN_STEPS - LOOK_AHEAD_STEPS  # of lips that one run on recorded speech gives
# how often one frame runs a graph: lips from a driver's face, from a recording, from live speech in pieces of 40 ms
MIXES = {
    "pictures": PICTURES,
    "driven by a face": {"lips_encoder": 1.0, **PICTURES},
    "driven by a recording": {**dict.fromkeys(SPEECH, 1 / STEPS_OF_A_WINDOW), **PICTURES},
    "driven by live speech": {**dict.fromkeys(SPEECH, 1.0), **PICTURES},
}


def measure(plain: Bundle, quantised: Bundle, feeds: dict[str, Feed], threads: int = 2) -> dict[str, dict[str, float]]:
    """Median milliseconds at batch 1 by graph and by mix of graphs: ``fp32_ms``, ``ms``, and ``faster``, the median of the ratios of
    runs that followed each other."""
    engines = [Networks(bundle, threads) for bundle in (plain, quantised)]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in feeds}
    for _ in range(WARM_UP + ROUNDS):
        for name, feed in feeds.items():
            times = []
            for networks in engines:
                start = time.perf_counter()
                networks.engine(name).run(feed)
                times.append(1e3 * (time.perf_counter() - start))
            taken[name].append((times[0], times[1]))
    tracks = {name: np.array(times[WARM_UP:]) for name, times in taken.items()}
    tracks |= {mix: np.sum([times * tracks[name] for name, times in runs.items()], axis=0) for mix, runs in MIXES.items()}
    return {
        name: {
            "fp32_ms": round(float(np.median(track[:, 0])), 3),
            "ms": round(float(np.median(track[:, 1])), 3),
            "faster": round(float(np.median(track[:, 0] / track[:, 1])), 3),
        }
        for name, track in tracks.items()
    }
