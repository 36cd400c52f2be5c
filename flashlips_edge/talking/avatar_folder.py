"""An avatar's folder: a face's video, who consented to what, and what was prepared or fine-tuned for it.

avatar.json   schema, video, bundle, consent; prepared: clips, networks; personal: training figures
<video>       the recording that is looped
bundle/       networks that know this face, if there are any
<clip>.npz    of a prepared avatar (schema 2), beside each <clip>.mp4: see prepared.py
identity.npz
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes

SCHEMA = 2
RECORD = "avatar.json"
BUNDLE = "bundle"
IDLE = "idle"
CLIP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
AGAIN = "make it again with python -m flashlips_edge.{}"
MAKERS = {1: "training.personal", 2: "prepare"}


@dataclass(frozen=True)
class AvatarFolder:
    """A verified folder. ``clips`` are the names of what was prepared, "idle" first; none for a personal avatar that was not."""

    folder: Path
    video: Path
    bundle: Path | None
    clips: tuple[str, ...]
    record: dict[str, Any]

    @staticmethod
    def open(path: str | Path) -> AvatarFolder | None:
        """The avatar at ``path``; None when it is not one but, say, a video or a folder of pictures.

        Raises:
            UserError: the record cannot be read or is of a newer schema, or the video is missing or outside the folder.
        """
        folder = Path(path)
        if not (folder / RECORD).is_file():
            return None
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            schema, name = int(record["schema"]), str(record["video"])
            clips = tuple(str(clip) for clip in record.get("clips", ()))
            bundle = BUNDLE if schema == 1 else record.get("bundle")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise UserError(
                f"--avatar {path}: {RECORD} is not a readable avatar's record; {AGAIN.format(f'{MAKERS[2]} or {MAKERS[1]}')}"
            ) from None
        if schema > SCHEMA:
            raise UserError(f"--avatar {path}: schema {schema} is newer than {SCHEMA}, the newest known here; update flashlips-edge")
        again = AGAIN.format(MAKERS.get(schema, MAKERS[2]))
        if Path(name).name != name or not (folder / name).is_file() or (folder / name).resolve().parent != folder.resolve():
            raise UserError(f"--avatar {path}: the video {name!r} that {RECORD} names is not in the folder; {again}")
        if bundle not in (None, BUNDLE) or (clips and clips[0] != IDLE) or not all(map(CLIP_NAME.fullmatch, clips)):
            raise UserError(f"--avatar {path}: {RECORD} names a bundle or clips that cannot be; {again}")
        return AvatarFolder(folder, folder / name, folder / BUNDLE if bundle else None, clips, record)


def write_record(folder: Path, video: str, consent: str, fields: dict[str, Any]) -> None:
    """Write avatar.json, the last file of an avatar folder: its presence says that the folder is whole."""
    schema = SCHEMA if "clips" in fields else 1  # what older versions can open says so
    record = {"schema": schema, "video": video, "bundle": BUNDLE, "consent": consent, **fields}
    write_bytes(folder / RECORD, json.dumps(record, indent=2).encode() + b"\n")
