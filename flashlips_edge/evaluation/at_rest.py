"""A face that was seen at rest only, as in a kiosk's idle loop, must speak all the same.

Of each clip the stretch in which the mouth stays most closed becomes the avatar, played there and back; it speaks the clip's own
sound. Neither the networks that hear nor the editor ever see this face's mouth open. The truth is the clip.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashlips_edge.bundle import Bundle
from flashlips_edge.evaluation import sheets
from flashlips_edge.evaluation.landmarks import LipReader
from flashlips_edge.evaluation.left_out import each
from flashlips_edge.evaluation.metrics import STILL_OPENING, correlation, moving, spread
from flashlips_edge.evaluation.recordings import Recording, recorded_at
from flashlips_edge.evaluation.systems import ours
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.media.video_writer import VideoWriter

STRETCH = 10  # frames
SHOWN = 5  # pictures of a clip on the sheet: true and spoken


def measure(
    bundle: Bundle, clips: list[Recording], reader: LipReader, work: Path, store: Path, left_out: dict[str, str]
) -> tuple[dict[str, float], sheets.Rows]:
    """correlation and range of the opening, against the clip's own; means over the clips; and rows for a sheet."""
    found = each("at_rest", clips, lambda clip: _clip(bundle, clip, reader, work, store), left_out)
    figures = {name: float(np.mean([values[name] for values, _ in found])) for name in found[0][0]} if found else {}
    return figures, [row for _, rows in found for row in rows]


def calmest(openings: np.ndarray, length: int = STRETCH) -> int:
    """First of the ``length`` consecutive frames of openings [T] whose mouth opens least."""
    widest = np.lib.stride_tricks.sliding_window_view(openings, min(length, len(openings))).max(1)
    return int(np.argmin(widest))


def _clip(bundle: Bundle, clip: Recording, reader: LipReader, work: Path, store: Path) -> tuple[dict[str, float], sheets.Rows]:
    idle, spoken = work / f"rest.{clip.name}.idle.mp4", work / f"rest.{clip.name}.mp4"
    _write(clip, calmest(clip.openings), idle)
    ours(bundle, idle, clip.sound(), spoken)
    result = Recording.open(spoken, bundle.crop_size, reader, store)
    truth = recorded_at(clip, clip.openings, result.pts_ns)
    moments = np.argsort(truth)[np.linspace(0, len(truth) - 1, SHOWN).astype(int)]  # from closed to open
    at = np.abs(clip.pts_ns[None] - result.pts_ns[moments, None]).argmin(1)
    rows = [(clip.path.stem, [crop for i, j in zip(at, moments) for crop in (clip.crops[i], result.crops[j])])]
    true_range = moving(spread(truth), STILL_OPENING, "the recorded mouth")
    return {"correlation": correlation(result.openings, truth), "range": spread(result.openings) / true_range}, rows


def _write(clip: Recording, first: int, out: Path) -> None:
    """The stretch from position ``first`` of the clip, as a video."""
    numbers, begin_ns = set(clip.numbers[first : first + STRETCH].tolist()), int(clip.pts_ns[first])
    with VideoFile(clip.path) as video, VideoWriter(out, video.width, video.height, video.frame_rate) as writer:
        for number, frame in enumerate(video):
            if number in numbers:
                writer.write(frame, frame.pts_ns - begin_ns)
