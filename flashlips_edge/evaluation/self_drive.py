"""A clip driven by its own face through the run path: what the whole path loses, and what it does around the mouth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashlips_edge.errors import UserError
from flashlips_edge.evaluation.left_out import each
from flashlips_edge.evaluation.metrics import STILL_LEVELS, mouth_box, moving, psnr
from flashlips_edge.evaluation.recordings import Recording
from flashlips_edge.evaluation.run_path import lip_sync, read_crops
from flashlips_edge.evaluation.systems import copy
from flashlips_edge.face.crop import Crop, half_extent, paste
from flashlips_edge.face.detect import Box
from flashlips_edge.media.video_file import VideoFile

SEAM = (0.02, 0.5)  # weights of the paste between which its border lies


def measure(clips: list[Recording], bundle: str, work: Path, left_out: dict[str, str]) -> dict[str, float]:
    """Means over the clips.

    mouth_db    PSNR of the mouth box against the source
    outside_db  PSNR outside the crop's square, and codec_db, the same of the source merely encoded again
    seam        gradient along the paste's border as a share of the source's there
    flicker     frame-to-frame difference where the paste may change, as a share of the source's; none where that stands still"""
    found = each("self_drive", clips, lambda clip: _clip(clip, bundle, work, left_out), left_out)
    names = dict.fromkeys(name for values in found for name in values)
    return {name: float(np.mean([values[name] for values in found if name in values])) for name in names}


def _clip(clip: Recording, bundle: str, work: Path, left_out: dict[str, str]) -> dict[str, float]:
    result, plain = work / f"self.{clip.name}.mp4", work / f"self.{clip.name}.codec.mp4"
    copy(clip, plain)
    # The run ends with its driver: of a long video, the copy of what is looked at.
    lip_sync(result, bundle, avatar=clip.path, driver=plain if clip.is_cut else clip.path)
    crops = np.stack(read_crops(result, clip, np.arange(len(clip.crops))))
    source = clip.crops[: len(crops)]
    weight = paste_weight(clip.crops.shape[1])
    border = (weight > SEAM[0]) & (weight < SEAM[1])
    found = {
        "mouth_db": float(np.mean([psnr(mouth_box(a), mouth_box(b)) for a, b in zip(crops, source)])),
        "outside_db": outside_db(result, clip),
        "codec_db": outside_db(plain, clip),
        "seam": float(_gradient(crops)[:, border].mean() / _gradient(source)[:, border].mean()),
    }
    change, own = (float(_change(pictures)[:, weight > 0].mean()) for pictures in (crops, source))
    try:
        found["flicker"] = change / moving(own, STILL_LEVELS, "the source's picture")
    except UserError as error:  # the other figures are good
        left_out[f"self_drive.flicker on {clip.name}"] = str(error)
    return found


def paste_weight(size: int) -> np.ndarray:
    """How much of an edited crop reaches the frame, [S, S] in 0..1: white pasted on black."""
    black = np.zeros((size, size, 3), np.uint8)
    return paste(black, Crop(black, np.eye(2, 3, dtype=np.float32)), np.full((size, size, 3), 255.0))[..., 0] / 255


def outside_db(result: Path, clip: Recording) -> float:
    """PSNR of a video against the clip, all but the square of the crop, mean over every fifth frame."""
    values = []
    position = {int(number): i for i, number in enumerate(clip.numbers)}
    with VideoFile(result) as changed, VideoFile(clip.path) as source:
        for number, (a, b) in enumerate(zip(changed, source)):
            if number % 5 == 0 and number in position:
                values.append(psnr(a.image, b.image, _outside(b.image.shape, clip.boxes[position[number]])))
    return float(np.mean(values))


def _outside(shape: tuple[int, ...], box: Box) -> np.ndarray:
    x, y = box.centre
    half = half_extent(box) + 2
    weight = np.ones(shape[:2])
    weight[max(0, int(y - half)) : int(y + half) + 1, max(0, int(x - half)) : int(x + half) + 1] = 0
    return weight


def _gradient(crops: np.ndarray) -> np.ndarray:
    """Gradient's size [T, S, S] of crops' mean level."""
    down, right = np.gradient(crops.mean(-1), axis=(1, 2))
    return np.hypot(down, right)


def _change(crops: np.ndarray) -> np.ndarray:
    """Absolute frame-to-frame difference [T-1, S, S]."""
    return np.abs(np.diff(crops.astype(np.float32), axis=0)).mean(-1)
