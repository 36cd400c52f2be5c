"""The autoencoder alone: how much of the mouth survives encoding and decoding."""

from __future__ import annotations

import numpy as np

from flashlips_edge.evaluation import sheets
from flashlips_edge.evaluation.left_out import each
from flashlips_edge.evaluation.metrics import mouth_box, psnr
from flashlips_edge.evaluation.pictures import decode, encode
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.talking.networks import Networks

EVERY = 4  # frames; neighbours say the same


def measure(networks: Networks, clips: list[Recording], left_out: dict[str, str]) -> tuple[dict[str, float], sheets.Rows]:
    """`mouth_db`: PSNR of the mouth box, mean over the frames of all clips; and rows for a sheet: crops beside their reconstruction."""
    found = each("autoencoder", clips, lambda clip: _clip(networks, clip), left_out)
    values = [value for of_clip, _ in found for value in of_clip]
    return {"mouth_db": float(np.mean(values))} if values else {}, [row for _, row in found]


def _clip(networks: Networks, clip: Recording) -> tuple[list[float], tuple[str, list[np.ndarray]]]:
    truth = clip.crops[::EVERY]
    result = decode(networks, encode(networks, truth))
    values = [psnr(mouth_box(a), mouth_box(b)) for a, b in zip(result, truth)]
    shown = clip.extremes(np.arange(0, len(clip.crops), EVERY)) // EVERY
    return values, (clip.path.stem, [pictures[i] for i in shown for pictures in (truth, result)])
