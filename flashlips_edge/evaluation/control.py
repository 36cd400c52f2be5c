"""Control: five lips vectors from closed to open must open the mouth in that order, on every face."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.evaluation import sheets
from flashlips_edge.evaluation.landmarks import LipReader
from flashlips_edge.evaluation.metrics import in_order
from flashlips_edge.evaluation.pictures import edit, encode, lips_of, reference_latents
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.face.crop import cut, paste
from flashlips_edge.face.detect import Box, HaarDetector
from flashlips_edge.talking.networks import N_REFERENCES, Networks

LEVELS = 5
FRAMES_PER_CLIP = 6
EXTREMES = 3  # frames whose mean lips vector stands for most closed and most open


def levels_between(lips: np.ndarray, openings: np.ndarray) -> np.ndarray:
    """Lips vectors [5, 12], evenly from the mean of the most closed frames to that of the most open, of lips [T, 12]."""
    order = np.argsort(openings)
    closed, wide = lips[order[:EXTREMES]].mean(0), lips[order[-EXTREMES:]].mean(0)
    return closed + np.linspace(0, 1, LEVELS)[:, None].astype(np.float32) * (wide - closed)


def levels_along(lips: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Lips vectors [5, 12] through the mean of lips [T, 12] along the direction [12], over the range these lips have in it."""
    unit = direction / np.linalg.norm(direction)
    along = (lips - lips.mean(0)) @ unit
    return lips.mean(0) + np.linspace(*np.percentile(along, (2, 98)), LEVELS)[:, None].astype(np.float32) * unit


def respond(
    networks: Networks, reader: LipReader, images: list[np.ndarray], boxes: list[Box], levels: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Openings [5], means over the frames with each level's lips pasted in; and the first frame's five faces."""
    cuts = [cut(image, box, networks.crop_size) for image, box in zip(images, boxes)]
    latents = encode(networks, np.stack([c.image for c in cuts]))
    # Each frame is referred to by the four after it in the list, round and round.
    picks = (np.arange(len(cuts))[:, None] + np.arange(1, N_REFERENCES + 1)) % len(cuts)
    references = reference_latents(latents, picks)
    openings, faces = [], []
    for lips in levels:
        edited = edit(networks, latents, references, np.repeat(lips[None], len(cuts), axis=0))
        pasted = [paste(image, crop, new) for image, crop, new in zip(images, cuts, edited)]
        openings.append(np.mean([reader(picture, box).opening for picture, box in zip(pasted, boxes)]))
        faces.append(cut(pasted[0], boxes[0], networks.crop_size).image)
    return np.array(openings), faces


def measure(bundle: Bundle, networks: Networks, reader: LipReader, clips: list[Recording]) -> tuple[dict[str, float], sheets.Rows]:
    """Per way of opening: share of faces in order, range in shares of the face's own, smallest step; and rows for a sheet.

    The two ways: `between` the clip's own most closed and most open lips, `along` the bundle's opening direction."""
    found: dict[str, list[np.ndarray]] = {"between": [], "along": []}
    own_ranges, rows = [], []
    for clip in clips:
        which = np.unique(np.linspace(0, len(clip.crops) - 1, FRAMES_PER_CLIP).astype(int))
        images, boxes = clip.pictures(which), [clip.boxes[i] for i in which]
        lips = lips_of(networks, clip.crops)
        ways = {"between": levels_between(lips, clip.openings), "along": levels_along(lips, bundle.lips_opening)}
        for way, levels in ways.items():
            openings, faces = respond(networks, reader, images, boxes, levels)
            found[way].append(openings)
            rows.append((f"{clip.path.stem}\n{way}\n{_row(openings)}", faces))
        ordered = np.sort(clip.openings)
        own_ranges.append(ordered[-EXTREMES:].mean() - ordered[:EXTREMES].mean())
    metrics = {}
    for way, openings in found.items():
        ranges = [track[-1] - track[0] for track in openings]
        metrics[f"{way}.in_order"] = float(np.mean([in_order(track) for track in openings]))
        metrics[f"{way}.range"] = float(np.mean(np.array(ranges) / own_ranges))
        metrics[f"{way}.smallest_step"] = float(min(np.diff(track).min() for track in openings))
    return metrics, rows


def measure_photos(networks: Networks, reader: LipReader, paths: list[Path], driver: Recording) -> tuple[dict[str, float], sheets.Rows]:
    """Share of photos that open in order with the driver's lips vectors, their mean range (opening), and rows for a sheet."""
    levels = levels_between(lips_of(networks, driver.crops), driver.openings)
    tracks, rows = [], []
    for path in paths:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        boxes = HaarDetector()(image)[:1]
        if boxes:
            openings, faces = respond(networks, reader, [image], boxes, levels)
            tracks.append(openings)
            rows.append((f"{path.stem}\n{_row(openings)}", faces))
    if not tracks:
        return {}, rows
    in_order_share = float(np.mean([in_order(track) for track in tracks]))
    return {"in_order": in_order_share, "range": float(np.mean([track[-1] - track[0] for track in tracks]))}, rows


def _row(openings: np.ndarray) -> str:
    return "\n".join(f"{opening:.3f}" for opening in openings)
