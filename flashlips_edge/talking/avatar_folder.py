"""A personal avatar: one folder with a face's video, the networks that were fine-tuned on it, and who consented to what.

avatar.json   schema, video, bundle, consent, training figures
<video>       the recording that is looped
bundle/       networks that know this face
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashlips_edge.errors import UserError
from flashlips_edge.files import write_bytes

SCHEMA = 1
RECORD = "avatar.json"
BUNDLE = "bundle"
AGAIN = "make it again with python -m flashlips_edge.training.personal"


@dataclass(frozen=True)
class AvatarFolder:
    """A verified folder: its video, its bundle's folder, and the record."""

    video: Path
    bundle: Path
    record: dict[str, Any]

    @staticmethod
    def open(path: str | Path) -> AvatarFolder | None:
        """The personal avatar at ``path``; None when it is not one but, say, a video or a folder of pictures.

        Raises:
            UserError: the record cannot be read or is of a newer schema, or the video is missing or outside the folder.
        """
        folder = Path(path)
        if not (folder / RECORD).is_file():
            return None
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            schema, name = int(record["schema"]), str(record["video"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"--avatar {path}: {RECORD} is not a readable avatar's record; {AGAIN}") from None
        if schema > SCHEMA:
            raise UserError(f"--avatar {path}: schema {schema} is newer than {SCHEMA}, the newest known here; update flashlips-edge")
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"--avatar {path}: the video {name!r} that {RECORD} names is not in the folder; {AGAIN}")
        return AvatarFolder(folder / name, folder / BUNDLE, record)


def write_record(folder: Path, video: str, consent: str, fields: dict[str, Any]) -> None:
    """Write avatar.json, the last file of an avatar folder: its presence says that the folder is whole."""
    record = {"schema": SCHEMA, "video": video, "bundle": BUNDLE, "consent": consent, **fields}
    write_bytes(folder / RECORD, json.dumps(record, indent=2).encode() + b"\n")
