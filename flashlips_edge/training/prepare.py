"""Videos to training clips: face crops and sound, one folder of plain arrays per video.

python -m flashlips_edge.training.prepare FOLDER_OR_VIDEO... --out work/clips
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from flashlips_edge.errors import UserError
from flashlips_edge.face.crop import cut
from flashlips_edge.face.detect import HaarDetector
from flashlips_edge.face.track import FaceTracker
from flashlips_edge.media.audio_file import read_audio
from flashlips_edge.media.video_file import VideoFile
from flashlips_edge.training.command import command

SUFFIXES = {".mpg", ".mp4", ".flv", ".mov", ".mkv", ".webm", ".avi"}
CROP_SIZE = 160
MIN_FRAMES = 25


def prepare_clip(path: Path, out: Path) -> str:
    """Write ``out/<parent>.<stem>/`` with crops.npy uint8 [T, S, S, 3], pts_ns.npy [T], audio.npy float32 [N] at 16 kHz.

    Returns what became of it, in a few words.
    """
    folder = out / f"{path.parent.name}.{path.stem}"
    if (folder / "audio.npy").exists():
        return "there already"
    try:
        with VideoFile(path) as video:
            tracker = FaceTracker(HaarDetector(), float(video.frame_rate))
            crops, pts_ns = [], []
            for frame in video:
                box = tracker.update(frame.luma, frame.pts_ns)
                if box is not None:
                    crops.append(cut(frame.image, box, CROP_SIZE).image)
                    pts_ns.append(frame.pts_ns)
        audio = read_audio(path)
    except UserError as error:
        return f"dropped: {error}"
    if len(crops) < MIN_FRAMES:
        return f"dropped: a face in {len(crops)} frames only"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "crops.npy", np.stack(crops))
    np.save(folder / "pts_ns.npy", np.array(pts_ns))
    np.save(folder / "audio.npy", audio)
    return "ok"


def main(
    videos: Annotated[list[Path], typer.Argument(help="video files, or folders of them")],
    out: Annotated[Path, typer.Option(help="folder for the clips")] = Path("work/clips"),
    workers: Annotated[int, typer.Option(help="processes")] = 2,
) -> None:
    """Cut face crops and sound out of videos; a broken or silent file is reported and left out."""
    paths = [p for v in videos for p in (sorted(q for q in v.rglob("*") if q.suffix.lower() in SUFFIXES) if v.is_dir() else [v])]
    with ProcessPoolExecutor(workers) as pool:
        results = list(tqdm(pool.map(prepare_clip, paths, [out] * len(paths), chunksize=4), total=len(paths), unit="clip"))
    for path, result in zip(paths, results):
        if result.startswith("dropped"):
            print(f"{path}: {result}")
    print(f"{sum(not r.startswith('dropped') for r in results)} of {len(paths)} clips in {out}")


if __name__ == "__main__":
    command(main)
