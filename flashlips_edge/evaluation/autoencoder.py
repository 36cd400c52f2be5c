"""The autoencoder alone: how much of the mouth survives encoding and decoding."""

from __future__ import annotations

import numpy as np

from flashlips_edge.evaluation import sheets
from flashlips_edge.evaluation.metrics import mouth_box, psnr
from flashlips_edge.evaluation.pictures import decode, encode
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.talking.networks import Networks

EVERY = 4  # frames; neighbours say the same


def measure(networks: Networks, clips: list[Recording]) -> tuple[float, sheets.Rows]:
    """Mouth box PSNR in dB, mean over the frames of all clips; and rows for a sheet: a clip's crop beside its reconstruction."""
    values, rows = [], []
    for clip in clips:
        truth = clip.crops[::EVERY]
        result = decode(networks, encode(networks, truth))
        values += [psnr(mouth_box(a), mouth_box(b)) for a, b in zip(result, truth)]
        shown = clip.extremes(np.arange(0, len(clip.crops), EVERY)) // EVERY
        rows.append((clip.path.stem, [pictures[i] for i in shown for pictures in (truth, result)]))
    return float(np.mean(values)), rows
