"""Control: five lips vectors from closed to open must open the mouth in that order, on every face."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.errors import UserError
from flashlips_edge.evaluation import sheets
from flashlips_edge.evaluation.landmarks import LipReader
from flashlips_edge.evaluation.left_out import each
from flashlips_edge.evaluation.metrics import STILL_OPENING, in_order, moving
from flashlips_edge.evaluation.pictures import edit, encode, lips_of, reference_latents
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.face.crop import cut, paste
from flashlips_edge.face.detect import Box, HaarDetector
from flashlips_edge.face.pose import upper_face
from flashlips_edge.talking.networks import N_REFERENCES, Networks
from flashlips_edge.talking.references import by_likeness

WAYS = ("between", "along")
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
    crops = np.stack([c.image for c in cuts])
    latents, own, poses = encode(networks, crops), lips_of(networks, crops), np.stack([upper_face(crop) for crop in crops])
    # Each frame is referred to by the four after it in the list, round and round.
    picks = (np.arange(len(cuts))[:, None] + np.arange(1, N_REFERENCES + 1)) % len(cuts)
    openings, faces = [], []
    for lips in levels:
        ordered = np.stack([four[by_likeness(own[four], poses[four], lips, poses[i])] for i, four in enumerate(picks)])
        references = reference_latents(latents, ordered)
        edited = edit(networks, latents, references, np.repeat(lips[None], len(cuts), axis=0))
        pasted = [paste(image, crop, new) for image, crop, new in zip(images, cuts, edited)]
        openings.append(np.mean([reader(picture, box).opening for picture, box in zip(pasted, boxes)]))
        faces.append(cut(pasted[0], boxes[0], networks.crop_size).image)
    return np.array(openings), faces


def measure(
    bundle: Bundle, networks: Networks, reader: LipReader, clips: list[Recording], left_out: dict[str, str]
) -> tuple[dict[str, float], sheets.Rows]:
    """Per way of opening: share of faces in order, range in shares of the face's own, smallest step; and rows for a sheet.

    The two ways: `between` the clip's own most closed and most open lips, `along` the bundle's opening direction."""
    found = each("control", clips, lambda clip: _clip(bundle, networks, reader, clip), left_out)
    own_ranges = [own_range for _, own_range, _ in found]
    metrics = {}
    for way in WAYS if found else ():
        openings = [tracks[way] for tracks, _, _ in found]
        ranges = [track[-1] - track[0] for track in openings]
        metrics[f"{way}.in_order"] = float(np.mean([in_order(track) for track in openings]))
        metrics[f"{way}.range"] = float(np.mean(np.array(ranges) / own_ranges))
        metrics[f"{way}.smallest_step"] = float(min(np.diff(track).min() for track in openings))
    return metrics, [row for _, _, rows in found for row in rows]


def _clip(bundle: Bundle, networks: Networks, reader: LipReader, clip: Recording) -> tuple[dict[str, np.ndarray], float, sheets.Rows]:
    """Openings [5] by way, the range of the face's own, and the clip's rows."""
    which = np.unique(np.linspace(0, len(clip.crops) - 1, FRAMES_PER_CLIP).astype(int))
    images, boxes = clip.pictures(which), [clip.boxes[i] for i in which]
    lips = lips_of(networks, clip.crops)
    tracks, rows = {}, []
    for way, levels in zip(WAYS, (levels_between(lips, clip.openings), levels_along(lips, bundle.lips_opening))):
        tracks[way], faces = respond(networks, reader, images, boxes, levels)
        rows.append((f"{clip.path.stem}\n{way}\n{_row(tracks[way])}", faces))
    ordered = np.sort(clip.openings)
    own_range = moving(float(ordered[-EXTREMES:].mean() - ordered[:EXTREMES].mean()), STILL_OPENING, "the face's own mouth")
    return tracks, own_range, rows


def measure_photos(
    networks: Networks, reader: LipReader, paths: list[Path], driver: Recording, left_out: dict[str, str]
) -> tuple[dict[str, float], sheets.Rows]:
    """Share of photos that open in order with the driver's lips vectors, their mean range (opening), and rows for a sheet."""
    levels = levels_between(lips_of(networks, driver.crops), driver.openings)
    found = each("control", paths, lambda path: _photo(networks, reader, path, levels), left_out)
    if not found:
        return {}, []
    in_order_share = float(np.mean([in_order(track) for track, _ in found]))
    return {"in_order": in_order_share, "range": float(np.mean([track[-1] - track[0] for track, _ in found]))}, [row for _, row in found]


def _photo(networks: Networks, reader: LipReader, path: Path, levels: np.ndarray) -> tuple[np.ndarray, tuple[str, list[np.ndarray]]]:
    """Openings [5] and the photo's row."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise UserError(f"{path} cannot be read as a picture.")
    image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    boxes = HaarDetector()(image)[:1]
    if not boxes:
        raise UserError(f"{path} shows no face.")
    openings, faces = respond(networks, reader, [image], boxes, levels)
    return openings, (f"{path.stem}\n{_row(openings)}", faces)


def _row(openings: np.ndarray) -> str:
    return "\n".join(f"{opening:.3f}" for opening in openings)
